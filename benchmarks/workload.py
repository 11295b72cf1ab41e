"""What is measured: a preset's settings, its training step as `trm_jax.train` compiles it, and its command line."""

import json
import sys

from absl import flags
from ml_collections import ConfigDict

from trm_jax.errors import ConfigError
from trm_jax.run.mesh import Mesh
from trm_jax.run.overrides import check_overrides
from trm_jax.run.programs import Training, make_step
from trm_jax.run.settings import Settings, from_dict

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
