"""config.json: the config that a run was trained with, as later versions read it."""

import json
from collections.abc import Iterable
from pathlib import Path

from trm_jax.errors import ConfigError, nearest
from trm_jax.run.overrides import with_changes
from trm_jax.run.settings import MEANT, Config, Settings, from_dict

CONFIG_FILE = "config.json"
FORMAT = 2  # of config.json, which says it; those of format 1 do not

# What an evaluation of a trained run may set otherwise than its training did.
CHANGEABLE = ("eval.augmentations", "eval.halt", "eval.batch_size", "eval.pass_ks", "eval.search_steps",
              "eval.search_lr", "data.max_eval_groups", "data.source", "arch.halt_max_steps",
              "arch.forward_dtype", "arch.attention", "arch.remat")


def as_text(config: Config) -> str:
    """Content of the config.json of a run with this config."""
    return json.dumps({"format": FORMAT} | config, indent=2)


def read(workdir: Path) -> Config:
    """The config that the run in `workdir` was trained with; an older version's lacks fields, which MEANT gives.

    Raises:
        ConfigError: there is none, it is damaged, or a newer version wrote it.
    """
    file = workdir / CONFIG_FILE
    if not file.exists():
        raise ConfigError(f"{workdir} holds no run: {CONFIG_FILE} is missing{_instead(workdir)}")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} is malformed: {error}") from None
    written = config.pop("format", 1) if isinstance(config, dict) else 1
    if not isinstance(config, dict) or not all(isinstance(section, dict) for section in config.values()):
        raise ConfigError(f"{file} is malformed: not of the form {{section: {{field: value}}}}")
    if type(written) is not int or written > FORMAT:
        raise ConfigError(f"{file} has format {written!r}, this version of trm_jax reads up to {FORMAT}: "
                          "use the version that the run was begun with, or a later one")
    for name, value in MEANT.items():
        section, field = name.split(".")
        if section in config:
            config[section].setdefault(field, value)
    return config


def _instead(workdir: Path) -> str:
    """Where the run may be that `workdir` does not hold."""
    if (workdir / "manifest.json").exists():
        return ("; it is a checkpoint converted from PyTorch to start runs from. To score a TRM as it is, its "
                "puzzle embeddings have to have names: convert it again with --identifiers=FOLDER/identifiers.json, of "
                "the dataset folder that it was trained on")
    if any((parent / CONFIG_FILE).exists() for parent in workdir.absolute().parents[:2]):
        return "; it belongs to a run: give the folder of that"
    runs = sorted(str(file.parent) for file in workdir.glob(f"*/{CONFIG_FILE}"))
    if runs:
        return f"; it holds runs: give one of them, e.g. {runs[0]}"
    if (workdir / "checkpoints").is_dir():
        return (" beside its checkpoints: copy it from where the run was trained (without it nothing says what model "
                "they hold), or begin another run in another --workdir")
    return ""


def load(workdir: Path, changes: Iterable[str] = ()) -> Settings:
    """Settings of the run in `workdir`, with `changes` to them, each "SECTION.FIELD=VALUE" of CHANGEABLE.

    Raises:
        ConfigError: there is no run, or a change that cannot be made.
    """
    config = read(workdir)
    changes = list(changes)
    for change in changes:
        name, equals, _ = change.partition("=")
        if name not in CHANGEABLE or not equals:
            raise ConfigError(f"--config.{change}: of a trained run only --config.FIELD=VALUE of these can be set; "
                              f"{nearest(name, CHANGEABLE)}")
    return from_dict(with_changes(config, changes))
