"""A run's configuration as frozen dataclasses, checked as a whole."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from trm_jax.data.arc import augment
from trm_jax.data.split import DataConfig
from trm_jax.dynamics.inference import HALTING
from trm_jax.dynamics.losses import LossConfig
from trm_jax.dynamics.optim import OptimConfig
from trm_jax.dynamics.search import Search
from trm_jax.dynamics.steps import ModeConfig
from trm_jax.errors import ConfigError, check_choice, check_numbers
from trm_jax.models.decoder import ArchConfig
from trm_jax.models.encoders import EncoderConfig
from trm_jax.run import fields

Config = dict[str, dict[str, Any]]  # section → field → plain value

# Fields that came after the first runs → the value that a run meant whose config.json lacks them. Whoever adds a field
# adds it here too; FORMAT of `config_file` goes up only when a value that is there changes its meaning.
MEANT: dict[str, Any] = {
    "encoder.final_norm": True,
    "data.training_tasks": True,
    "data.evaluation_demos": False,
    "data.queries": "test",
    "data.variants": 0,
    "data.permute_colours": True,
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
    "loss.contrastive_weight": 0.0,
    "loss.contrastive_temperature": 0.1,
    "eval.search_steps": 0,
    "eval.search_lr": 0.1,
}


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
        check_numbers("train", self, ["epochs", "eval_interval", "log_every_steps"], at_least=1)
        check_numbers("train", self, ["max_steps", "stall_minutes", "microbatches"], at_least=0)
        check_numbers("train", self, ["seed"], at_least=0, below=2**32)


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """The `eval` section; configs/base.py says what each field means."""

    augmentations: int
    halt: str
    batch_size: int
    pass_ks: tuple[int, ...]
    search_steps: int
    search_lr: float

    def __post_init__(self) -> None:
        check_choice("eval.halt", self.halt, HALTING)
        check_numbers("eval", self, ["search_steps"], at_least=0)
        check_numbers("eval", self, ["search_lr"], above=0)
        check_numbers("eval", self, ["batch_size"], at_least=1)
        check_numbers("eval", self, ["augmentations"], at_least=1)
        if not self.pass_ks or min(self.pass_ks) < 1:
            raise ConfigError(f"eval.pass_ks={self.pass_ks} must name at least one K, all positive")

    @property
    def search(self) -> Search | None:
        """How contexts are searched before they answer; None: not at all."""
        return Search(self.search_steps, self.search_lr) if self.search_steps else None


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
        if self.loss.contrastive_weight and self.embeds_tasks:
            raise ConfigError("loss.contrastive_weight has no effect with encoder.type='embedding', which encodes "
                              "nothing; set loss.contrastive_weight=0")
        if self.loss.contrastive_weight and self.train.microbatches > 1:
            raise ConfigError("loss.contrastive_weight compares all rows of a batch, which train.microbatches="
                              f"{self.train.microbatches} parts; set train.microbatches=1")
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
        if self.eval.augmentations > (most := augment.most_variants(self.data.permute_colours)):
            raise ConfigError(f"eval.augmentations={self.eval.augmentations} is more than the {most:,} variants that a "
                              f"task has with data.permute_colours={self.data.permute_colours}")
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


def data_section(values: Mapping[str, Any]) -> DataConfig:
    """A `data` section as a run of this or an earlier version wrote it down."""
    meant = {name.removeprefix("data."): value for name, value in MEANT.items() if name.startswith("data.")}
    found: DataConfig = _section("data", DataConfig, meant | dict(values))
    return found


def _section(name: str, cls: Any, values: Mapping[str, Any]) -> Any:
    kinds = fields.kinds(cls)
    fields.check_names(f"field of config.{name}", values, kinds)
    for field, value in values.items():
        fields.check_kind(f"{name}.{field}", value, kinds[field])
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def kind_of(name: str) -> Any:
    """Type of the field SECTION.FIELD. Raises ConfigError where there is no such field."""
    section, _, field = name.partition(".")
    fields.check_known("section", section, SECTIONS)
    kinds = fields.kinds(SECTIONS[section])
    fields.check_known(f"field of config.{section}", field, kinds)
    return kinds[field]
