"""▶ Evaluation throughput: trm_jax against the PyTorch reference, the same queries and weights, taking turns.

    python -m benchmarks.evaluation --config=configs/o1.py:tiny [--rows=32] [--batches=5] [--several] [--json]

Demonstrations are encoded once per variant of a task, as `trm_jax.evaluate` does, or once per query; PyTorch encodes
every slot, once per query or, as the PyTorch project evaluates, again at every ACT step. All answer the same batches,
with fresh parameters, and PyTorch's answers are compared with ours. Figures are medians over batches. --several takes
only tasks with several queries, whose variants share their demonstrations.
"""

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app, flags
from flax import nnx
from ml_collections import config_flags

from benchmarks import flops
from benchmarks.workload import needs_torch, parse_flags, start
from trm_jax.data.arc.plan import EvalPlan
from trm_jax.data.arc.rows import PADDING
from trm_jax.data.arc.tasks import Task, TaskError
from trm_jax.data.pipeline import EvalBatch, eval_batches
from trm_jax.data.split import load_tasks
from trm_jax.errors import ConfigError
from trm_jax.models.etrm import ETRM, split
from trm_jax.models.layers import parameter_keys
from trm_jax.run.mesh import Mesh, replicated, to_global
from trm_jax.run.programs import compiled
from trm_jax.run.settings import Settings

_CONFIG = config_flags.DEFINE_config_file("config", None, "Preset to time, e.g. configs/o1.py:tiny.")
_ROWS = flags.DEFINE_integer("rows", None, "Rows of a batch; the preset's where none are given.", lower_bound=1)
_BATCHES = flags.DEFINE_integer("batches", 5, "Timed batches at most, after one that is not.", lower_bound=1)
_SEVERAL = flags.DEFINE_bool("several", False, "Only tasks with several queries.")
_JSON = flags.DEFINE_bool("json", False, "One line of JSON.")

Answer = Callable[[EvalBatch], np.ndarray]  # a batch on the host → predicted tokens (B, S)

OURS, PER_QUERY = "trm_jax, once per variant", "trm_jax, once per query"
TORCH, TORCH_EACH = "PyTorch, once per query", "PyTorch, at every ACT step"
AGREEMENT = {"float32": 0.99, "bfloat16": 0.8}  # least share of equal tokens; a fresh model's logits are nearly ties


def our_answers(settings: Settings, mesh: Mesh, weights: tuple[dict, dict], graph: nnx.GraphDef) -> dict[str, Answer]:
    """How `trm_jax.evaluate` answers, and the same without sharing the demonstrations of a variant."""
    predict = compiled(mesh, graph, "max_steps", settings.loss.type)
    placed = jax.device_put(weights, replicated(mesh))

    def answer(local: EvalBatch, shared: bool) -> np.ndarray:
        there = to_global(mesh, local)
        return np.asarray(predict(*placed, there.batch, there.variant if shared else there.row)[0].tokens)

    return {OURS: lambda batch: answer(batch, True), PER_QUERY: lambda batch: answer(batch, False)}


def torch_answers(settings: Settings, weights: tuple[dict, dict]) -> dict[str, Answer]:
    """The reference's, with fused attention. Raises ConfigError where PyTorch is missing."""
    with needs_torch():
        import torch

        from benchmarks.torch_side import loaded_reference, precision, tensors
    model = loaded_reference(settings, weights)

    @torch.no_grad()
    def answer(local: EvalBatch, each_step: bool) -> np.ndarray:
        batch = tensors(local.batch)
        latents = model.inner.initial_latents(len(batch["inputs"]))
        with precision(settings):
            for step in range(settings.arch.halt_max_steps):
                if step == 0 or each_step:
                    context = model.encode(batch).tokens
                output = model.inner(context, batch["inputs"], latents)
                latents = output.latents
        return output.logits.argmax(-1).cpu().numpy()

    return {TORCH: lambda batch: answer(batch, False), TORCH_EACH: lambda batch: answer(batch, True)}


def batches_of(settings: Settings, tasks: tuple[Task, ...]) -> list[EvalBatch]:
    """The first batches of an evaluation, on the host."""
    plan = EvalPlan(tasks, settings.eval.augmentations, seed=0)
    batches = eval_batches(plan, side=settings.data.max_grid_size, batch_size=settings.eval.batch_size,
                           max_demos=settings.encoder.max_demos, process_index=0, process_count=1)
    return list(itertools.islice(batches, _BATCHES.value + 1))


def take_turns(answers: dict[str, Answer], batches: list[EvalBatch], least: float) -> dict[str, list[float]]:
    """Seconds of every batch but the first. Raises ConfigError where PyTorch answers otherwise than we do."""
    seconds: dict[str, list[float]] = {name: [] for name in answers}
    names = list(answers)
    for number, batch in enumerate(batches):
        found = {}
        for turn in range(len(names)):
            name = names[(number + turn) % len(names)]  # nobody always goes first
            start = time.perf_counter()
            found[name] = answers[name](batch)
            seconds[name].append(time.perf_counter() - start)
        real = batch.variant != PADDING
        equal = float((found[OURS] == found[TORCH])[real].mean())
        if equal < least:
            raise ConfigError(f"only {equal:.1%} of PyTorch's predicted tokens are ours: no comparison")
    return {name: taken[1:] or taken for name, taken in seconds.items()}


def measure(settings: Settings, mesh: Mesh) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds of a batch by name; facts about the rows. Raises ConfigError, TaskError."""
    tasks = load_tasks(settings.data).evaluation
    if _SEVERAL.value:
        tasks = tuple(task for task in tasks if len(task.queries) > 1)
    if not tasks:
        raise TaskError("no task is left to evaluate")
    graph, *weights = split(ETRM(settings.arch, settings.encoder, settings.seq_len, parameter_keys(0)))
    batches = batches_of(settings, tasks)
    answers = our_answers(settings, mesh, tuple(weights), graph) | torch_answers(settings, tuple(weights))
    taken = take_turns(answers, batches, AGREEMENT[settings.arch.dtype.name])
    demos = float(np.mean([batch.batch.demo_mask.sum(axis=1)[batch.variant != PADDING].mean() for batch in batches]))
    facts = {"rows": settings.eval.batch_size, "act_steps": settings.arch.halt_max_steps,
             "demonstrations_a_row": demos, "useful_operations_a_row": flops.answer(settings, 1.0, demos)}
    return {name: statistics.median(seconds) for name, seconds in taken.items()}, facts


def main(_: list[str]) -> None:
    try:
        settings, mesh, where = start(_CONFIG.value, _ROWS.value, training=False)
        seconds, facts = measure(settings, mesh)
    except (ConfigError, TaskError) as error:
        sys.exit(f"error: {error}")
    ours, rows = seconds[OURS], facts["rows"]
    if _JSON.value:
        print(json.dumps({"ratio": seconds[TORCH] / ours, "trm_jax_seconds": ours, "pytorch_seconds": seconds[TORCH],
                          "seconds": seconds, **facts}))
        return
    print(f"{config_flags.get_config_filename(flags.FLAGS['config'])}: {rows} rows a batch of "
          f"{facts['demonstrations_a_row']:.1f} demonstrations, {facts['act_steps']} ACT steps, "
          f"{facts['useful_operations_a_row'] / 1e9:,.1f} useful GFLOP a row; {where}\n")
    print("| demonstrations encoded by | rows/s | s a batch | ratio |\n|---|---|---|---|")
    for name, taken in seconds.items():
        print(f"| {name} | {rows / taken:.2f} | {taken:.3f} | {taken / ours:.2f} |")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
