"""Random grids and tasks."""

from typing import Any

import numpy as np

from trm_jax.data.arc.grids import Grid
from trm_jax.data.arc.tasks import Pair, Task


def grid(rng: np.random.Generator, largest: int = 30) -> Grid:
    shape = rng.integers(1, largest + 1, size=2)
    return rng.integers(0, 10, size=shape, dtype=np.uint8)


def pair(rng: np.random.Generator, largest: int = 30) -> Pair:
    return Pair(grid(rng, largest), grid(rng, largest))


def task(rng: np.random.Generator, task_id: str, demos: int = 3, queries: int = 1, largest: int = 30) -> Task:
    found = [pair(rng, largest) for _ in range(demos + queries)]
    return Task(task_id, tuple(found[:demos]), tuple(found[demos:]))


def content(of: Task) -> dict[str, list[dict[str, Any]]]:
    """A task in ARC's JSON form; an unknown answer has no "output"."""
    return {"train": [_cells(pair) for pair in of.demos], "test": [_cells(pair) for pair in of.queries]}


def _cells(of: Pair) -> dict[str, Any]:
    found = {"input": of.input.tolist()}
    return found if of.output is None else found | {"output": of.output.tolist()}
