"""A run that goes on: what may be set otherwise than it was begun with, and what that changes."""

import fnmatch
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trm_jax.dynamics.optim import OptimConfig, learning_rate
from trm_jax.errors import ConfigError
from trm_jax.run import config_file
from trm_jax.run.settings import Config

# What a run that continues may set otherwise than it began; of these, only the start of a run reads AT_START.
FREE = ("train.max_steps", "train.epochs", "train.eval_interval", "train.log_every_steps", "train.stall_minutes",
        "train.microbatches", "train.init_from", "train.load_pretrained_decoder", "eval.*", "checkpoint.*",
        "data.max_eval_groups", "arch.forward_dtype", "arch.attention", "arch.remat")
AT_START = ("train.init_from", "train.load_pretrained_decoder")
MODEL = ("arch.*", "encoder.*", "data.max_grid_size", "mode.name")  # what makes another model


def continued(workdir: Path, config: Config) -> tuple[Config, list[str]]:
    """`config` as the run that is saved in `workdir` continues with it.

    Returns:
        `config`, with what only the start of the run reads as it was there; lines for the log.

    Raises:
        ConfigError: they differ in anything but FREE.
    """
    saved = config_file.read(workdir)
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


def jump(config: OptimConfig, before: int, total: int, step: int) -> list[str]:
    """Says so where `total` steps, in place of `before`, move the schedule under a run that continues at `step`."""
    there, here = (float(learning_rate(config, steps)(step)) for steps in (before, total))
    if math.isclose(there, here, rel_tol=1e-3):
        return []
    return [f"another number of epochs moves the schedule: the learning rate goes from {there:.3g} to {here:.3g} at "
            f"step {step}; with optim.lr_min_ratio=1 it would not"]


def _among(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _flat(config: Config) -> dict[str, Any]:
    """SECTION.FIELD → value."""
    return {f"{section}.{field}": value for section, values in config.items() for field, value in values.items()}


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)
