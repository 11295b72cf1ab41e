"""What is measured, and where: a preset's settings on this machine, its training step, and its command line."""

import contextlib
import json
import sys
from collections.abc import Iterator

from absl import flags
from ml_collections import ConfigDict

from trm_jax.errors import ConfigError
from trm_jax.run.machine import resolve
from trm_jax.run.mesh import Mesh, data_mesh
from trm_jax.run.overrides import check_overrides
from trm_jax.run.programs import Training, make_step
from trm_jax.run.settings import Settings, from_dict
from trm_jax.run.startup import use_cores

ALL_GROUPS = 400  # tasks of ARC-AGI-1, where a preset trains on all that there are


def training_step(settings: Settings, mesh: Mesh) -> Training:
    """The step that `settings` describe on the devices of `mesh`. Raises ConfigError where its rows do not divide."""
    return make_step(settings, mesh, groups(settings))


def groups(settings: Settings) -> int:
    """Tasks that a run trains on, as far as its settings tell."""
    return settings.data.max_train_groups or ALL_GROUPS


def settings_of(config: ConfigDict) -> Settings:
    """The settings that a preset's config describes. Raises ConfigError where it cannot be run."""
    return from_dict(json.loads(config.to_json()))


def start(config: ConfigDict, rows: int | None, *, training: bool = True) -> tuple[Settings, Mesh, str]:
    """What runs on the devices of this machine, with `rows` rows a batch where any are given; the devices, and what was
    chosen for them in words. Before anything else of JAX. Raises ConfigError where it cannot be run."""
    config = ConfigDict(config)
    section, field = ("data", "global_batch_size") if training else ("eval", "batch_size")
    config[section][field] = config[section][field] if rows is None else rows
    use_cores(config.data.global_batch_size, config.eval.batch_size)
    mesh = data_mesh()
    settings, chosen = resolve(settings_of(config), mesh, training=training)
    return settings, mesh, "; ".join([f"{mesh.size} × {mesh.devices.flat[0].device_kind}", *chosen])


@contextlib.contextmanager
def needs_torch() -> Iterator[None]:
    """Around imports. Raises ConfigError, with what to install, where PyTorch or what goes with it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is missing: pip install -e '.[convert]' -c constraints.txt") from None


def parse_flags(argv: list[str]) -> list[str]:
    """Reads a command line that may have --config; what is wrong with it is told in one line and ends the program."""
    try:
        check_overrides(argv[1:])
        program, *stray = flags.FLAGS(argv)
        if stray:
            raise ConfigError(f"what is {stray[0]!r} for? fields are set as --config.SECTION.FIELD=VALUE")
        if flags.FLAGS.config is not None:
            flags.FLAGS.config.to_dict()  # a preset that could not be loaded says so at its first use only
        return [program]
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError, OSError, ImportError) as error:
        sys.exit(f"error: {str(error).strip().splitlines()[-1].strip()}")
