"""Whether the encoder has collapsed, on evaluation tasks."""

from collections.abc import Callable, Sequence

import jax

from trm_jax.data.arc.plan import EvalPlan
from trm_jax.data.arc.table import Table
from trm_jax.data.arc.tasks import Task
from trm_jax.data.pipeline import EvalBatch, eval_batches
from trm_jax.dynamics.collapse import Statistics, add, collapse_metrics
from trm_jax.dynamics.inference import Measure
from trm_jax.dynamics.metrics import summarise
from trm_jax.dynamics.state import Tree
from trm_jax.run.mesh import Mesh, to_global, to_hosts
from trm_jax.run.settings import Settings

MAX_VARIANTS = 8  # of a task: more would not tell more

_add = jax.jit(add, donate_argnums=0)
_metrics = jax.jit(collapse_metrics)


def diagnose(settings: Settings, mesh: Mesh, measure: Measure, tasks: Sequence[Task],
             table: Table | None, params: Tree, buffers: Tree, step: int,
             each_batch: Callable[[], None] = lambda: None) -> dict[str, float]:
    """The metrics of `collapse.collapse_metrics` over the queries of at most 8 variants of every task.

    All rows are one sample: batch size and device count change no more than the last digits. Nothing is read
    back before the last batch.

    Args:
        measure: as `programs.compiled_measure` makes it for this mesh.
        tasks: at least one; they fit the canvas.
        table: rows of the model's embedding table, None for a model that reads demonstrations.
        step: of the parameters, for the message.
        each_batch: called after each; what it raises breaks this off.

    Raises:
        NonFiniteError: the encoder gives numbers that are not finite.
    """
    plan = EvalPlan(tasks, min(settings.eval.augmentations, MAX_VARIANTS), settings.train.seed, table,
                    settings.data.permute_colours)
    total: Statistics | None = None
    for local in eval_batches(plan, side=settings.data.max_grid_size, batch_size=settings.eval.batch_size,
                              max_demos=settings.encoder.max_demos, process_index=jax.process_index(),
                              process_count=jax.process_count()):
        batch: EvalBatch = to_global(mesh, local)
        found = measure(params, buffers, batch.batch, batch.variant, len(tasks))
        total = found if total is None else _add(total, found)
        each_batch()
    return summarise(step, [to_hosts(_metrics(total))])
