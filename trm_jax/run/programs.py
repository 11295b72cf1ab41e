"""The compiled programs of a run, with their shardings written out: a training step, and those of an evaluation."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from trm_jax.data.arc.rows import PADDING
from trm_jax.dynamics.act import Batch, batch_shapes
from trm_jax.dynamics.collapse import Statistics
from trm_jax.dynamics.collapse import measure as statistics_of
from trm_jax.dynamics.inference import Measure, Predict, contexts, predict, predict_searching
from trm_jax.dynamics.metrics import Packed
from trm_jax.dynamics.optim import Optimiser
from trm_jax.dynamics.search import Search
from trm_jax.dynamics.state import TrainState, Tree, initial_state, parameter_counts
from trm_jax.dynamics.steps import STEPS, Recipe
from trm_jax.errors import ConfigError
from trm_jax.models.etrm import ETRM, split
from trm_jax.models.layers import parameter_keys
from trm_jax.run.arrays import abstract
from trm_jax.run.mesh import Mesh, all_rows, by_rows, check_divides, replicated, state_shardings, summed_over_rows
from trm_jax.run.settings import Settings

SKETCH_SHARE = 0.004  # of the gradient's numbers, which several devices send to compare the contexts of a task


@dataclasses.dataclass(frozen=True)
class Training:
    """A run's training step under jit, and the state that it works on.

    Attributes:
        init: () → the state before the first batch, on its devices.
        step: (state, batch) → (state, metrics in one array); the state is donated.
        graph: of the model, static.
        state: shapes of the state, with their shardings.
        batch: shapes of a batch, with their shardings.
    """

    init: Callable[[], TrainState]
    step: Any
    graph: nnx.GraphDef
    state: TrainState
    batch: Batch


def make_step(settings: Settings, mesh: Mesh, groups: int) -> Training:
    """The training step that `settings` describe, on the devices of `mesh`, for a run on `groups` tasks.

    Raises:
        ConfigError: a batch does not divide by devices and parts, or a section does not fit the model.
    """
    rows, parts = settings.data.global_batch_size, settings.train.microbatches or 1
    check_divides("data.global_batch_size", rows, mesh)
    if rows // mesh.size % parts:
        raise ConfigError(f"train.microbatches={parts} must divide the {rows // mesh.size} rows of a device: "
                          f"data.global_batch_size={rows} on {mesh.size}")
    optimiser = Optimiser(settings.optim, settings.steps(settings.train.epochs, groups))
    shapes = batch_shapes(rows, settings.encoder.max_demos, settings.seq_len)
    for_model, for_draws = jax.random.split(jax.random.key(settings.train.seed))

    def make_model() -> ETRM:
        return ETRM(settings.arch, settings.encoder, settings.seq_len, parameter_keys(for_model),
                    table_rows=groups * settings.data.variants if settings.embeds_tasks else 0)

    def make_state() -> TrainState:
        return initial_state(make_model(), optimiser, for_draws, None if settings.mode.name == "online" else shapes)

    graph, params, _ = split(nnx.eval_shape(make_model))
    width = max(1, int(SKETCH_SHARE * parameter_counts(params)["total"] / groups)) if mesh.size > 1 else None
    recipe = Recipe(graph, settings.mode, settings.loss, optimiser, groups, summed_over_rows(mesh, parts), all_rows,
                    width)
    state = jax.eval_shape(make_state)
    shardings = state_shardings(mesh, state)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Packed]:
        state, metrics = STEPS[settings.mode.name](recipe, state, batch)
        return state, Packed.of(metrics)

    step = jax.jit(train_step, donate_argnums=0, in_shardings=(shardings, by_rows(mesh)),
                   out_shardings=(shardings, replicated(mesh)))
    return Training(jax.jit(make_state, out_shardings=shardings), step, graph, abstract(state, shardings),
                    abstract(shapes, jax.tree.map(lambda _: by_rows(mesh), shapes)))


def compiled(mesh: Mesh, graph: nnx.GraphDef, halt: str, loss_type: str, search: Search | None = None) -> Predict:
    """`predict` under jit, of each device's rows by itself; parameters and buffers are on every device.

    Args:
        search: how contexts are searched first; None: not at all.
    """
    answer = (functools.partial(predict, graph, halt, loss_type) if search is None else
              functools.partial(predict_searching, graph, halt, loss_type, search))
    return _jitted(mesh, _by_device(mesh, answer), by_rows(mesh))


def compiled_measure(mesh: Mesh, graph: nnx.GraphDef) -> Measure:
    """How the contexts of a batch vary over and within tasks, which `batch.task` numbers from 0, under jit."""
    def measure(params: Tree, buffers: Tree, batch: Batch, variant: jax.Array, groups: int) -> Statistics:
        context = _by_device(mesh, functools.partial(contexts, graph))(params, buffers, batch, variant)
        return statistics_of(context, variant != PADDING, batch.task, groups)

    return _jitted(mesh, measure, replicated(mesh), static_argnums=4)


def _by_device(mesh: Mesh, f: Callable[..., Any]) -> Callable[..., Any]:
    """f(params, buffers, batch, variant) on each device's rows, without any sum over them."""
    def call(params: Tree, buffers: Tree, batch: Batch, variant: jax.Array) -> Any:
        each = summed_over_rows(mesh)(lambda everywhere, batch, variant: ((), (), f(*everywhere, batch, variant)))
        return each((params, buffers), batch, variant)[2]

    return call


def _jitted(mesh: Mesh, f: Callable[..., Any], out: Any, **options: Any) -> Any:
    rows, everywhere = by_rows(mesh), replicated(mesh)
    return jax.jit(f, in_shardings=(everywhere, everywhere, rows, rows), out_shardings=out, **options)
