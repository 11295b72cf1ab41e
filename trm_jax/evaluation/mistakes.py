"""What becomes of each query: answered, or in which way its best candidate is wrong."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from trm_jax.data.arc.grids import Grid
from trm_jax.data.arc.tasks import Task
from trm_jax.data.arc.voting import ATTEMPTS, Votes

NEARLY = 0.1  # of the cells of a grid of the right size
NEAR, FAR = "with up to a tenth of the cells wrong", "with over a tenth of the cells wrong"
KINDS = ("answered", NEAR, FAR, "that repeat the query", "of another size", "without a complete grid")


def mistakes(votes: Votes, tasks: Iterable[Task]) -> dict[str, int]:
    """Kind, one of KINDS, → how many of the queries with a known answer it fits; the first kind that does counts.

    Kinds are worded to stand behind a number. "Answered" are those whose answer stands among the two attempts of the
    ARC Prize. All others are called after their best candidate: it repeats the query, has another size than the answer,
    or its size and wrong cells.
    """
    kinds = Counter(_kind(votes, task, query) for task in tasks for query in task.answers)
    return {kind: kinds[kind] for kind in KINDS if kinds[kind]}


def _kind(votes: Votes, task: Task, query: int) -> str:
    pair, ranking = task.queries[query], votes.ranking(task.id, query)
    assert pair.output is not None  # one of task.answers
    rank = votes.rank_of(task.id, query, pair.output)
    if rank is not None and rank <= ATTEMPTS:
        return "answered"
    return _wrong(ranking[0].grid, pair.input, pair.output) if ranking else "without a complete grid"


def _wrong(grid: Grid, shown: Grid, answer: Grid) -> str:
    if np.array_equal(grid, shown):
        return "that repeat the query"
    if grid.shape != answer.shape:
        return "of another size"
    return FAR if np.mean(grid != answer) > NEARLY else NEAR
