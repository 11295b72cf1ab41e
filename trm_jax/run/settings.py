"""A run's configuration as frozen dataclasses, checked as a whole."""

import dataclasses
import fnmatch
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trm_jax.data.arc import augment
from trm_jax.data.split import DataConfig
from trm_jax.dynamics.inference import HALTING
from trm_jax.dynamics.losses import LossConfig
from trm_jax.dynamics.optim import OptimConfig
from trm_jax.dynamics.steps import ModeConfig
from trm_jax.errors import ConfigError, check_choice, check_numbers, nearest
from trm_jax.models.decoder import ArchConfig
from trm_jax.models.encoders import EncoderConfig
from trm_jax.run import fields

Config = dict[str, dict[str, Any]]  # section → field → plain value

CONFIG_FILE = "config.json"
FORMAT = 2  # of config.json, which says it; those of format 1 do not

# Fields that came after the first runs → the value that a run meant whose config.json lacks them. Whoever adds a field
# adds it here too; FORMAT goes up only when a value that is there changes its meaning.
MEANT: dict[str, Any] = {
    "encoder.final_norm": True,
    "data.training_tasks": True,
    "data.evaluation_demos": False,
    "data.queries": "test",
    "data.variants": 0,
    "arch.attention": "auto",
    "arch.remat": "auto",
    "train.stall_minutes": 0.0,
    "checkpoint.every_minutes": 0.0,
    "checkpoint.give_up_minutes": 0.0,
    "train.microbatches": 1,
    "encoder.embedding_width": 0,
    "optim.embedding_lr": 1e-2,
    "optim.embedding_weight_decay": 0.1,
    "train.init_from": "",
}

# What an evaluation of a trained run may set otherwise than its training did.
CHANGEABLE = ("eval.augmentations", "eval.halt", "eval.batch_size", "eval.pass_ks", "data.max_eval_groups",
              "data.source", "arch.halt_max_steps", "arch.forward_dtype", "arch.attention", "arch.remat")
# What a run that continues may set otherwise than it began; of these, only the start of a run reads AT_START.
FREE = ("train.max_steps", "train.epochs", "train.eval_interval", "train.log_every_steps", "train.stall_minutes",
        "train.microbatches",
        "eval.*", "checkpoint.*", "data.max_eval_groups", "arch.forward_dtype", "arch.attention", "arch.remat",
        "train.init_from", "train.load_pretrained_decoder")
AT_START = ("train.init_from", "train.load_pretrained_decoder")
MODEL = ("arch.*", "encoder.*", "data.max_grid_size", "mode.name")  # what makes another model

OVERRIDE = re.compile(r"--?(?:no)?config\.(?P<name>[^=]*)(?:=(?P<text>.*))?", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The `train` section; configs/base.py says what each field means."""

    epochs: int
    eval_interval: int
    max_steps: int
    log_every_steps: int
    stall_minutes: float
    microbatches: int
    seed: int
    init_from: str
    load_pretrained_decoder: str

    def __post_init__(self) -> None:
        if self.init_from and self.load_pretrained_decoder:
            raise ConfigError("train.init_from starts from a whole model, its decoder included; set "
                              "train.load_pretrained_decoder='' or train.init_from=''")
        check_numbers("train", self, ["epochs", "eval_interval", "log_every_steps", "microbatches"], at_least=1)
        check_numbers("train", self, ["max_steps", "stall_minutes"], at_least=0)
        check_numbers("train", self, ["seed"], at_least=0, below=2**32)


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """The `eval` section; configs/base.py says what each field means."""

    augmentations: int
    halt: str
    batch_size: int
    pass_ks: tuple[int, ...]

    def __post_init__(self) -> None:
        check_choice("eval.halt", self.halt, HALTING)
        check_numbers("eval", self, ["batch_size"], at_least=1)
        if not 1 <= self.augmentations <= augment.VARIANTS:
            raise ConfigError(f"eval.augmentations={self.augmentations} must be at least 1, the task as it is, "
                              f"and at most {augment.VARIANTS:,}")
        if not self.pass_ks or min(self.pass_ks) < 1:
            raise ConfigError(f"eval.pass_ks={self.pass_ks} must name at least one K, all positive")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """The `checkpoint` section; configs/base.py says what each field means."""

    every_steps: int
    every_minutes: float
    keep: int
    give_up_minutes: float

    def __post_init__(self) -> None:
        check_numbers("checkpoint", self, ["every_steps", "every_minutes", "give_up_minutes"], at_least=0)
        check_numbers("checkpoint", self, ["keep"], at_least=1)


@dataclasses.dataclass(frozen=True)
class Settings:
    """All sections of a run's config. Raises ConfigError where two of them do not fit together."""

    mode: ModeConfig
    arch: ArchConfig
    encoder: EncoderConfig
    loss: LossConfig
    optim: OptimConfig
    data: DataConfig
    train: TrainConfig
    eval: EvalConfig
    checkpoint: CheckpointConfig

    def __post_init__(self) -> None:
        if self.encoder.variational and self.loss.kl_weight == 0:
            raise ConfigError(f"encoder.type={self.encoder.type!r} is variational and needs loss.kl_weight above 0; "
                              "without it the latent's noise is never held in check")
        if not self.encoder.variational and self.loss.kl_weight:
            raise ConfigError(f"loss.kl_weight={self.loss.kl_weight} has no effect: encoder.type="
                              f"{self.encoder.type!r} has no latent; set loss.kl_weight=0")
        for field, neutral in self.encoder.unread.items():
            raise ConfigError(f"encoder.{field}={getattr(self.encoder, field)!r} has no effect with encoder.type="
                              f"{self.encoder.type!r}; set encoder.{field}={neutral!r}")
        if self.embeds_tasks and self.mode.encode == "once":
            raise ConfigError("encoder.type='embedding' is looked up, and trained, at every ACT step; set "
                              "mode.encode='every_step'")
        if self.embeds_tasks and not self.data.variants:
            raise ConfigError("encoder.type='embedding' has a row for each fixed variant of a task; set data.variants "
                              "to at least 1, the task as it is")
        if self.embeds_tasks and self.eval.augmentations > self.data.variants:
            raise ConfigError(f"eval.augmentations={self.eval.augmentations} is more than the data.variants="
                              f"{self.data.variants} that the embedding table has rows for")
        if self.arch.mlp_t and self.arch.pos_encodings == "rope":
            raise ConfigError("arch.pos_encodings='rope' has no effect with arch.mlp_t; set it to 'none' or 'learned'")

    @property
    def embeds_tasks(self) -> bool:
        """Whether contexts are rows of a table (classic TRM) in place of what an encoder reads."""
        return self.encoder.type == "embedding"

    @property
    def seq_len(self) -> int:
        """S, tokens of one canvas."""
        return self.data.max_grid_size**2

    def steps(self, epochs: int, groups: int) -> int:
        """Batches that `epochs` epochs over `groups` tasks come to, at least one."""
        return max(1, epochs * groups // self.data.global_batch_size)


SECTIONS: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(Settings)}


def from_dict(config: Mapping[str, Any]) -> Settings:
    """Settings from nested plain values, e.g. a ConfigDict's or config.json's.

    Raises:
        ConfigError: a section or field is unknown, missing, or holds what it must not.
    """
    fields.check_names("section", config, SECTIONS)
    return Settings(**{name: _section(name, cls, config[name]) for name, cls in SECTIONS.items()})


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


def with_changes(config: Config, changes: Iterable[str]) -> Config:
    """`config` with other values, each given as "SECTION.FIELD=VALUE".

    Raises:
        ConfigError: there is no such field, or it cannot hold that value.
    """
    config = {section: dict(values) for section, values in config.items()}
    for change in changes:
        name, _, text = change.partition("=")
        section, field = name.split(".") if name.count(".") == 1 else (name, "")
        value = fields.parse(name, text, _kind(name))
        config.setdefault(section, {})[field] = value
    return config


def continued(workdir: Path, config: Config) -> tuple[Config, list[str]]:
    """`config` as the run that is saved in `workdir` continues with it.

    Returns:
        `config`, with what only the start of the run reads as it was there; lines for the log.

    Raises:
        ConfigError: they differ in anything but FREE.
    """
    saved = read(workdir)
    there, here = _flat(saved), _flat(config)
    differing = {name: f"{name}: {_shown(there.get(name))} there, {_shown(here.get(name))} here"
                 for name in here | there if there.get(name) != here.get(name)}
    fixed = [name for name in differing if not _among(name, FREE)]
    if fixed:
        what = "model" if any(_among(name, MODEL) for name in fixed) else "config"
        raise ConfigError(f"{workdir} holds a run of another {what} ({'; '.join(differing[name] for name in fixed)}); "
                          "choose another --workdir")
    at_start = {field: saved.get("train", {}).get(field, config["train"][field])
                for field in (name.removeprefix("train.") for name in AT_START)}
    log = [f"config changed since the last start: {'; '.join(differing.values())}"] if differing else []
    return config | {"train": config["train"] | at_start}, log


def data_section(values: Mapping[str, Any]) -> DataConfig:
    """A `data` section as a run of this or an earlier version wrote it down."""
    meant = {name.removeprefix("data."): value for name, value in MEANT.items() if name.startswith("data.")}
    found: DataConfig = _section("data", DataConfig, meant | dict(values))
    return found


def check_overrides(words: Iterable[str]) -> None:
    """Raises ConfigError where one of these words of a command line sets an unknown field, or to a wrong value."""
    for word in words:
        if match := OVERRIDE.fullmatch(word):
            kind = _kind(match["name"])
            if match["text"] is not None:
                fields.parse(match["name"], match["text"], kind)


def _section(name: str, cls: Any, values: Mapping[str, Any]) -> Any:
    kinds = fields.kinds(cls)
    fields.check_names(f"field of config.{name}", values, kinds)
    for field, value in values.items():
        fields.check_kind(f"{name}.{field}", value, kinds[field])
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _kind(name: str) -> Any:
    """Type of the field SECTION.FIELD. Raises ConfigError where there is no such field."""
    section, _, field = name.partition(".")
    fields.check_known("section", section, SECTIONS)
    kinds = fields.kinds(SECTIONS[section])
    fields.check_known(f"field of config.{section}", field, kinds)
    return kinds[field]


def _among(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _flat(config: Config) -> dict[str, Any]:
    """SECTION.FIELD → value."""
    return {f"{section}.{field}": value for section, values in config.items() for field, value in values.items()}


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)
