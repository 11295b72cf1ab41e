"""Tasks as pictures: demonstrations, then each query with the grids that were predicted for it and its answer."""

from collections.abc import Sequence

import numpy as np

from trm_jax.data.arc import draw
from trm_jax.data.arc.draw import Panel
from trm_jax.data.arc.tasks import Task
from trm_jax.data.arc.voting import ATTEMPTS, Candidate, Votes

PAIRS_IN_ROW = 3  # demonstrations side by side
WATCHED = 4  # tasks that training shows at each evaluation


def demonstration_panels(task: Task, slots: int) -> list[Panel]:
    """Input and output of each demonstration that a model with so many slots is shown.

    Labels say of how many where these are not all: a generator of pairs (RE-ARC) has a thousand.
    """
    of_all = f" of {len(task.demos)}" if len(task.demos) > slots else ""
    return [panel for number, demo in enumerate(task.demos[:slots], start=1)
            for panel in ((f"demo {number}{of_all}", demo.input), ("output", demo.output))]


def query_panels(task: Task, query: int, candidates: Sequence[Candidate], predictions: int) -> list[Panel]:
    """A query, the best candidates for it, and the answer where it is known.

    Args:
        predictions: that were cast for the query.
    """
    pair = task.queries[query]
    panels: list[Panel] = [(f"query {query + 1}" if len(task.queries) > 1 else "query", pair.input)]
    for number in range(min(ATTEMPTS, max(len(candidates), 1))):  # one panel even where nothing was predicted
        found = candidates[number] if candidates else None
        label = f"attempt {number + 1}"
        panels.append((label, None) if found is None else
                      (f"{label}: {found.votes}/{predictions}, {found.confidence:.0%}", found.grid))
    return [*panels, ("answer", pair.output)] if pair.output is not None else panels


def task_picture(task: Task, votes: Votes, slots: int) -> np.ndarray:
    """A task and what was voted for, as one (height, width, 3) uint8 picture.

    An attempt's label says how many of the predictions voted for it, and their mean confidence.

    Args:
        slots: demonstrations that the model is shown at most (encoder.max_demos).
    """
    demos = demonstration_panels(task, slots)
    step = 2 * PAIRS_IN_ROW
    rows = [demos[start:start + step] for start in range(0, len(demos), step)]
    for query in range(len(task.queries)):
        rows.append(query_panels(task, query, votes.ranking(task.id, query), votes.predictions(task.id, query)))
    return draw.gallery(rows)


def watched(tasks: Sequence[Task], votes: Votes, slots: int) -> dict[str, np.ndarray]:
    """TensorBoard tag → picture of the first tasks of an evaluation, the same ones every time."""
    return {f"tasks/{task.id}": task_picture(task, votes, slots) for task in tasks[:WATCHED]}
