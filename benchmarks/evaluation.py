"""Evaluation throughput: demonstrations encoded once per variant, against once per query and once per ACT step.

    python -m benchmarks.evaluation --config=configs/o1.py:tiny [--config.arch.halt_max_steps=16] [--several]

All three answer the same rows of the preset's evaluation tasks in one process, taking turns, with fresh
parameters. Figures are medians of the batches, the ratios too, and only these should be compared between machines.
Encoding in every ACT step is what the PyTorch evaluation does. With --several only tasks with several queries are
answered, whose variants share their demonstrations.
"""

import functools
import itertools
import json
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from absl import app, flags
from flax import nnx
from ml_collections import config_flags

from trm_jax.data.arc.plan import EvalPlan
from trm_jax.data.pipeline import EvalBatch, eval_batches
from trm_jax.data.split import load_tasks
from trm_jax.dynamics.act import Batch
from trm_jax.models.etrm import ETRM, split
from trm_jax.run import settings as settings_lib
from trm_jax.run.machine import resolve
from trm_jax.run.mesh import data_mesh, replicated, summed_over_rows, to_global
from trm_jax.run.programs import compiled

_CONFIG = config_flags.DEFINE_config_file("config", "configs/o1.py:tiny", "Preset to time.")
_BATCHES = flags.DEFINE_integer("batches", 5, "Timed batches of each at most, after one that is not.")
_SEVERAL = flags.DEFINE_bool("several", False, "Only tasks with several queries.")


def encode_every_step(graph: nnx.GraphDef, weights: tuple[dict, dict], batch: Batch) -> tuple[tuple, tuple, jax.Array]:
    """Predicted tokens (B, S), of each device's rows, where every ACT step encodes all demonstrations again."""
    model = nnx.merge(graph, *weights)

    def step(_: int, loop: tuple) -> tuple:
        # The barrier keeps the compiler from encoding once, before the loop.
        z, demos = jax.lax.optimization_barrier((loop[0], batch.demos))
        context = model.encoder(demos, batch.demo_mask)
        z, logits, _ = model.decoder(z, batch.inputs, context.tokens)
        return z, jnp.argmax(logits, axis=-1).astype(jnp.uint8)

    start = model.decoder.initial(len(batch.inputs)), batch.inputs
    return (), (), jax.lax.fori_loop(0, model.decoder.arch.halt_max_steps, step, start)[1]


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def main(_: list[str]) -> None:
    mesh = data_mesh()
    settings, _ = resolve(settings_lib.from_dict(json.loads(_CONFIG.value.to_json())), mesh, training=False)
    rows = settings.eval.batch_size
    graph, params, buffers = split(ETRM(settings.arch, settings.encoder, settings.seq_len, nnx.Rngs(0)))
    params, buffers = jax.device_put((params, buffers), replicated(mesh))

    tasks = load_tasks(settings.data).evaluation
    if _SEVERAL.value:
        tasks = tuple(task for task in tasks if len(task.queries) > 1)
    plan = EvalPlan(tasks, settings.eval.augmentations, seed=0)
    batches = eval_batches(plan, side=settings.data.max_grid_size, batch_size=rows,
                           max_demos=settings.encoder.max_demos, process_index=0, process_count=1)

    predict = compiled(mesh, graph, "max_steps", settings.loss.type)
    every_step = jax.jit(summed_over_rows(mesh)(functools.partial(encode_every_step, graph)))
    times: dict[str, list[float]] = {}
    for number, local in enumerate(itertools.islice(batches, _BATCHES.value + 1)):
        found: EvalBatch = to_global(mesh, local)
        runs = {
            "once per variant": lambda b=found: predict(params, buffers, b.batch, b.variant),
            "once per query": lambda b=found: predict(params, buffers, b.batch, b.row),  # no two rows share
            "once per ACT step": lambda b=found: every_step((params, buffers), b.batch)[2],
        }
        first = number % len(runs)  # nobody always goes first
        for name in (*list(runs)[first:], *list(runs)[:first]):
            times.setdefault(name, []).append(seconds(runs[name]))

    print(f"{mesh.size} x {mesh.devices.flat[0].device_kind}, {rows} rows of {settings.seq_len} tokens a batch, "
          f"{settings.arch.halt_max_steps} ACT steps, {sum(len(t.demos) for t in tasks) / len(tasks):.1f} "
          f"demonstrations and {sum(len(t.queries) for t in tasks) / len(tasks):.2f} queries a task")
    slowest = times["once per ACT step"]
    for name, taken in times.items():
        ratios = [slow / fast for slow, fast in zip(slowest[1:], taken[1:], strict=True)]
        print(f"{name:<18}{rows / statistics.median(taken[1:]):>9.1f} rows/s   {statistics.median(ratios):.2f} x")


if __name__ == "__main__":
    app.run(main)
