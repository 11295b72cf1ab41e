"""A run folder with a checkpoint of a very small model, whose weights are random: nothing is trained."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs import o1
from tests import tiny
from tests.data.arc import fakes
from trm_jax.data.arc.tasks import Pair, Task
from trm_jax.dynamics.act import batch_shapes
from trm_jax.dynamics.optim import Optimiser
from trm_jax.dynamics.state import TrainState, initial_state
from trm_jax.models.etrm import ETRM
from trm_jax.models.layers import parameter_keys
from trm_jax.run import config_file
from trm_jax.run.checkpoint import Checkpoints
from trm_jax.run.mesh import data_mesh, state_shardings

SIDE = 6
STEP = 7
TOO_LARGE = 2  # tasks that do not fit the canvas


def write_tasks(folder: Path) -> None:
    """Eight tasks with one to three queries, and TOO_LARGE more; one query has no known answer."""
    rng = np.random.default_rng(0)
    tasks = [fakes.task(rng, f"t{i}", demos=2 + i % 2, queries=1 + i % 3, largest=4) for i in range(8)]
    last = tasks[-1]
    tasks[-1] = Task(last.id, last.demos, (*last.queries[:-1], Pair(last.queries[-1].input, None)))
    large = np.zeros((SIDE + 1, 2), np.uint8)
    tasks += [Task(f"wide{i}", (Pair(large, large),), (Pair(large, large),)) for i in range(TOO_LARGE)]
    (folder / "evaluation").mkdir(parents=True)
    for task in tasks:
        (folder / "evaluation" / f"{task.id}.json").write_text(json.dumps(fakes.content(task)))


def write_run(workdir: Path, tasks: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """A run in `workdir` on the tasks in folder `tasks`, with one checkpoint at STEP and a carry on 8 devices.

    `changes` to its config are given as "section.field" → value.
    """
    config = tiny.shrink(o1.get_config("tiny"), tasks)
    config.arch.H_cycles = 1
    config.data.max_grid_size = SIDE
    config.eval.update(augmentations=3, batch_size=16, pass_ks=(1, 2, 5))
    config.update_from_flattened_dict(changes or {})
    workdir.mkdir(parents=True)
    (workdir / "config.json").write_text(config.to_json())
    settings = config_file.load(workdir)
    mesh = data_mesh()

    def make() -> TrainState:
        model = ETRM(settings.arch, settings.encoder, settings.seq_len, parameter_keys(0))
        # A fresh Q-head says the same of every row; with this one some want to halt, at one step or another.
        model.decoder.q_head.kernel[...] = jax.random.normal(jax.random.key(1), (16, 2))
        model.decoder.q_head.bias[...] = jax.numpy.full(2, 4.0)
        state = initial_state(model, Optimiser(settings.optim, 100), jax.random.key(0),
                              batch_shapes(8, settings.encoder.max_demos, settings.seq_len))
        # Evaluation must use the average, so the parameters themselves are made useless.
        return state.replace(step=state.step + STEP, params=jax.tree.map(lambda p: p * jax.numpy.nan, state.params))

    state = jax.jit(make, out_shardings=state_shardings(mesh, jax.eval_shape(make)))()
    checkpoints = Checkpoints(workdir)
    checkpoints.save(state, {})
    checkpoints.add_scores(STEP, {"eval/pass@2": 0.5, "eval/accuracy": 0.5})
    checkpoints.close()
    return workdir
