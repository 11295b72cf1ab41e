"""A run's configuration as frozen dataclasses, checked as a whole."""

import ast
import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trm_jax.arc import augment
from trm_jax.data import DataConfig
from trm_jax.errors import ConfigError, check_choice, nearest
from trm_jax.inference import HALTING
from trm_jax.losses import LossConfig
from trm_jax.models.decoder import ArchConfig
from trm_jax.models.encoders import EncoderConfig
from trm_jax.optim import OptimConfig
from trm_jax.steps import ModeConfig

CONFIG_FILE = "config.json"

# What an evaluation of a trained run may set otherwise than its training did.
CHANGEABLE = ("eval.augmentations", "eval.halt", "eval.batch_size", "eval.pass_ks", "data.max_eval_groups",
              "data.source", "arch.halt_max_steps", "arch.forward_dtype")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The `train` section; configs/base.py says what each field means."""

    epochs: int
    eval_interval: int
    max_steps: int
    log_every_steps: int
    seed: int
    load_pretrained_decoder: str

    def __post_init__(self) -> None:
        for name in ("epochs", "eval_interval", "log_every_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name}={getattr(self, name)} must be at least 1")
        if self.max_steps < 0 or self.seed < 0:
            raise ConfigError(f"train.max_steps={self.max_steps} and train.seed={self.seed} must not be negative")


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """The `eval` section; configs/base.py says what each field means."""

    augmentations: int
    halt: str
    batch_size: int
    pass_ks: tuple[int, ...]

    def __post_init__(self) -> None:
        check_choice("eval.halt", self.halt, HALTING)
        if not 1 <= self.augmentations <= augment.VARIANTS:
            raise ConfigError(f"eval.augmentations={self.augmentations} must be at least 1, the task as it is, "
                              f"and at most {augment.VARIANTS:,}")
        if not self.pass_ks or min(self.pass_ks) < 1:
            raise ConfigError(f"eval.pass_ks={self.pass_ks} must name at least one K, all positive")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """The `checkpoint` section; configs/base.py says what each field means."""

    every_steps: int
    keep: int

    def __post_init__(self) -> None:
        if self.every_steps < 0 or self.keep < 1:
            raise ConfigError(f"checkpoint.every_steps={self.every_steps} must not be negative, and "
                              f"checkpoint.keep={self.keep} at least 1")


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
        if self.arch.mlp_t and self.arch.pos_encodings == "rope":
            raise ConfigError("arch.pos_encodings='rope' has no effect with arch.mlp_t; set it to 'none' or 'learned'")

    @property
    def seq_len(self) -> int:
        """S, tokens of one canvas."""
        return self.data.max_grid_size**2

    def steps(self, epochs: int, groups: int) -> int:
        """Batches that `epochs` epochs over `groups` tasks come to, at least one."""
        return max(1, epochs * groups // self.data.global_batch_size)


def from_dict(config: Mapping[str, Any]) -> Settings:
    """Settings from nested plain values, e.g. a ConfigDict's or config.json's.

    Raises:
        ConfigError: a section or field is unknown, missing, or holds what it must not.
    """
    sections = {field.name: field.type for field in dataclasses.fields(Settings)}
    _check_names("section", config, sections)
    return Settings(**{name: _section(name, cls, config[name]) for name, cls in sections.items()})


def load(workdir: Path, changes: Iterable[str] = ()) -> Settings:
    """Settings of the run in `workdir`, with `changes` to them, each "SECTION.FIELD=VALUE" of CHANGEABLE.

    Raises:
        ConfigError: there is no run, or a change that cannot be made.
    """
    file = workdir / CONFIG_FILE
    if not file.exists():
        raise ConfigError(f"{workdir} holds no run: {CONFIG_FILE} is missing")
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise ConfigError(f"{file} is malformed: {error}") from None
    for change in changes:
        name, equals, text = change.partition("=")
        if name not in CHANGEABLE or not equals:
            raise ConfigError(f"--config.{change}: of a trained run only --config.FIELD=VALUE of these can be set; "
                              f"{nearest(name, CHANGEABLE)}")
        section, field = name.split(".")
        config[section][field] = _value(name, text, config[section][field])
    return from_dict(config)


def _value(name: str, text: str, old: Any) -> Any:
    """`text` as a value of the type of `old`: a text, a whole number or a list of such."""
    if isinstance(old, str):
        return text
    try:
        value = ast.literal_eval(text)
        new = list(value) if isinstance(old, list) else value
    except (ValueError, SyntaxError, TypeError):
        new = None
    numbers = new if isinstance(old, list) else [new]
    if not isinstance(numbers, list) or any(type(number) is not int for number in numbers):
        kind = "whole numbers, separated by commas" if isinstance(old, list) else "a whole number"
        raise ConfigError(f"--config.{name}={text}: not {kind}")
    return new


def _section(name: str, cls: Any, values: Mapping[str, Any]) -> Any:
    _check_names(f"field of config.{name}", values, [field.name for field in dataclasses.fields(cls)])
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _check_names(kind: str, given: Mapping[str, Any], known: Any) -> None:
    for name in given:
        if name not in known:
            raise ConfigError(f"unknown {kind} {name!r}; {nearest(name, known)}")
    missing = [name for name in known if name not in given]
    if missing:
        raise ConfigError(f"missing {kind}: {', '.join(missing)}")
