"""What is measured: a preset's settings, its training step as `trm_jax.train` compiles it, and its command line."""

import functools
import json
import sys
from typing import Any, NamedTuple

import jax
from absl import flags
from flax import nnx
from ml_collections import ConfigDict

from trm_jax.dynamics.act import Batch, batch_shapes
from trm_jax.dynamics.optim import Optimiser
from trm_jax.dynamics.state import TrainState, initial_state
from trm_jax.dynamics.steps import STEPS, Recipe
from trm_jax.errors import ConfigError
from trm_jax.models.etrm import ETRM, split
from trm_jax.run import settings as settings_lib
from trm_jax.run.mesh import Mesh, by_rows, check_divides, per_shard, replicated, state_shardings
from trm_jax.run.settings import Settings

TOTAL_STEPS = 1000  # of the learning rate's schedule; no measurement depends on it


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
    rows = settings.data.global_batch_size
    check_divides("data.global_batch_size", rows, mesh)
    optimiser = Optimiser(settings.optim, TOTAL_STEPS)
    shapes = batch_shapes(rows, settings.encoder.max_demos, settings.seq_len)
    carried = None if settings.mode.name == "online" else shapes

    def make_model() -> ETRM:
        return ETRM(settings.arch, settings.encoder, settings.seq_len, nnx.Rngs(settings.train.seed))

    def make_state() -> TrainState:
        return initial_state(make_model(), optimiser, settings.train.seed, carried)

    state = jax.eval_shape(make_state)
    shardings = state_shardings(mesh, state)
    recipe = Recipe(split(nnx.eval_shape(make_model))[0], settings.mode, settings.loss, optimiser, per_shard(mesh))
    call = jax.jit(functools.partial(STEPS[settings.mode.name], recipe), donate_argnums=0,
                   in_shardings=(shardings, by_rows(mesh)), out_shardings=(shardings, replicated(mesh)))
    return Step(call, jax.jit(make_state, out_shardings=shardings), _placed(state, shardings),
                _placed(shapes, jax.tree.map(lambda _: by_rows(mesh), shapes)))


def _placed(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
                        shapes, shardings)


def settings_of(config: ConfigDict) -> Settings:
    """The settings that a preset's config describes. Raises ConfigError where it cannot be run."""
    return settings_lib.from_dict(json.loads(config.to_json()))


def parse_flags(argv: list[str]) -> list[str]:
    """Reads a command line with --config; what is wrong with it is told in one line and ends the program."""
    try:
        settings_lib.check_overrides(argv[1:])
        program, *stray = flags.FLAGS(argv)
        if stray:
            raise ConfigError(f"what is {stray[0]!r} for? fields are set as --config.SECTION.FIELD=VALUE")
        flags.FLAGS.config.to_dict()  # a preset that could not be loaded says so at its first use only
        return [program]
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError, OSError, ImportError) as error:
        sys.exit(f"error: {str(error).strip().splitlines()[-1].strip()}")
