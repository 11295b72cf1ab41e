"""What is measured: a preset's settings, its training step as `trm_jax.train` compiles it, and its command line."""

import json
import sys
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict

from trm_jax.dynamics.act import Batch
from trm_jax.dynamics.state import TrainState
from trm_jax.errors import ConfigError
from trm_jax.run import settings as settings_lib
from trm_jax.run.mesh import Mesh
from trm_jax.run.programs import make_step
from trm_jax.run.settings import Settings

ALL_GROUPS = 400  # tasks of ARC-AGI-1, where a preset trains on all that there are


class Step(NamedTuple):
    """A training step under jit, and what it takes.

    Attributes:
        step: (state, batch) → (state, metrics); the state is donated.
        init: () → the state before the first batch, on its devices.
        state, batch: shapes with their shardings.
    """

    step: Any
    init: Any
    state: TrainState
    batch: Batch


def training_step(settings: Settings, mesh: Mesh) -> Step:
    """The step that `settings` describe on the devices of `mesh`. Raises ConfigError where its rows do not divide."""
    made = make_step(settings, mesh, settings.data.max_train_groups or ALL_GROUPS)
    return Step(made.step, made.init, made.state, made.batch)


def settings_of(config: ConfigDict) -> Settings:
    """The settings that a preset's config describes. Raises ConfigError where it cannot be run."""
    return settings_lib.from_dict(json.loads(config.to_json()))


def parse_flags(argv: list[str]) -> list[str]:
    """Reads a command line that may have --config; what is wrong with it is told in one line and ends the program."""
    try:
        settings_lib.check_overrides(argv[1:])
        program, *stray = flags.FLAGS(argv)
        if stray:
            raise ConfigError(f"what is {stray[0]!r} for? fields are set as --config.SECTION.FIELD=VALUE")
        if flags.FLAGS.config is not None:
            flags.FLAGS.config.to_dict()  # a preset that could not be loaded says so at its first use only
        return [program]
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError, OSError, ImportError) as error:
        sys.exit(f"error: {str(error).strip().splitlines()[-1].strip()}")
