"""The votes of one evaluation, what they amount to, and the score.

A prediction, mapped back to the original colours and orientation, is one vote for a grid as a query's answer.
The candidates of a query rank by (votes, mean sigmoid(q_halt)), both descending; equals rank by the smallest
variant number that voted for them. The order in which votes arrive does not matter: means come from exactly
rounded sums, and variant numbers break ties. (Evaluators that take variants in order call that "first seen".)

A `Votes` belongs to one evaluation and is made anew for the next.
"""

import dataclasses
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from trm_jax.data.arc.grids import Grid
from trm_jax.data.arc.tasks import Task

ATTEMPTS = 2  # per query in the ARC Prize
NO_ANSWER = [[0]]  # a valid grid for a submission where no complete grid was predicted
_Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A grid that was predicted for a query. `confidence` is the mean of sigmoid(q_halt) over its votes."""

    grid: Grid
    votes: int
    confidence: float
    first_variant: int


class Votes:
    """Predictions by task id, query index and variant number; each such triple votes at most once."""

    def __init__(self) -> None:
        # (task id, query) -> variant number -> (grid as text or None, q_halt logit). Text, because it hashes,
        # is JSON, and equal grids share one interned string: a full evaluation casts 400,000 votes.
        self._cast: dict[tuple[str, int], dict[int, tuple[str | None, float]]] = {}

    def add(self, task_id: str, query: int, variant: int, grid: Grid | None, q_halt: float) -> None:
        """Adds one prediction.

        Args:
          variant: its number within the task; breaks ties between candidates.
          grid: in the original colours and orientation; None where no complete grid was predicted.
          q_halt: logit.
        Raises:
          ValueError: this variant has voted on this query before, or q_halt is NaN.
        """
        self._add(task_id, query, variant, None if grid is None else _as_text(grid), float(q_halt))

    def _add(self, task_id: str, query: int, variant: int, text: str | None, q_halt: float) -> None:
        if math.isnan(q_halt):
            raise ValueError(f"task {task_id}, query {query}, variant {variant}: q_halt is NaN")
        cast = self._cast.setdefault((task_id, query), {})
        if variant in cast:
            raise ValueError(f"task {task_id}, query {query}: variant {variant} has voted before")
        cast[variant] = (None if text is None else sys.intern(text), q_halt)

    def extend(self, votes: Iterable[list[Any]]) -> None:
        """Adds votes as `to_list` has them. Raises ValueError where `add` does."""
        for vote in votes:
            self._add(*vote)

    def __len__(self) -> int:
        """Number of predictions, complete grids or not."""
        return sum(map(len, self._cast.values()))

    def predictions(self, task_id: str, query: int) -> int:
        """Number of predictions for a query, complete grids or not."""
        return len(self._cast.get((task_id, query), ()))

    def ranking(self, task_id: str, query: int) -> list[Candidate]:
        """Candidates of a query, best first; empty where no complete grid was predicted."""
        ballots: dict[str, list[tuple[int, float]]] = {}
        for variant, (text, q_halt) in self._cast.get((task_id, query), {}).items():
            if text is not None:
                ballots.setdefault(text, []).append((variant, _sigmoid(q_halt)))
        candidates = [
            Candidate(
                grid=_as_grid(text),
                votes=len(ballot),
                confidence=math.fsum(confidence for _, confidence in ballot) / len(ballot),
                first_variant=min(ballot)[0],
            )
            for text, ballot in ballots.items()
        ]
        return sorted(candidates, key=lambda c: (-c.votes, -c.confidence, c.first_variant))

    def rank_of(self, task_id: str, query: int, answer: Grid) -> int | None:
        """Rank of a grid among the candidates of a query, from 1; None where nobody voted for it."""
        for rank, candidate in enumerate(self.ranking(task_id, query), start=1):
            if np.array_equal(candidate.grid, answer):
                return rank
        return None

    def to_list(self) -> list[list[Any]]:
        """A JSON value: [task id, query, variant, grid as text or None, q_halt] per vote."""
        return [
            [task_id, query, variant, text, q_halt]
            for (task_id, query), cast in self._cast.items()
            for variant, (text, q_halt) in cast.items()
        ]


def _as_text(grid: Grid) -> str:
    """Rows of digits joined by "/"."""
    digits = (grid + ord("0")).astype(np.uint8).tobytes().decode("ascii")
    columns = grid.shape[1]
    return "/".join(digits[start : start + columns] for start in range(0, len(digits), columns))


def _as_grid(text: str) -> Grid:
    rows = text.count("/") + 1
    return (np.frombuffer(text.replace("/", "").encode("ascii"), np.uint8) - ord("0")).reshape(rows, -1)


def _sigmoid(logit: float) -> float:
    """Without overflow for either sign."""
    small = math.exp(-abs(logit))
    return (1.0 if logit >= 0 else small) / (1.0 + small)


@dataclasses.dataclass(frozen=True)
class Score:
    """What votes are worth.

    Attributes:
      pass_at: K → mean over evaluated tasks of the share of a task's queries answered among the top K.
      solved: K → number of evaluated tasks whose every query is.
      evaluated: tasks with at least one prediction and at least one known answer; the only denominator. With
        none, every pass@K is 0.
      total: tasks that were given, so that nobody takes the one number for the other.
      by_task: evaluated task → share of its queries answered within the two attempts, to pair evaluations by task.
    """

    pass_at: dict[int, float]
    solved: dict[int, int]
    evaluated: int
    total: int
    by_task: dict[str, float]


def score(votes: Votes, tasks: Sequence[Task], pass_ks: Iterable[int]) -> Score:
    """Scores votes. A query without a known answer is left out; one without a prediction counts as wrong."""
    ranks = {  # per evaluated task, the rank of each known answer
        task.id: [votes.rank_of(task.id, query, answer) or math.inf for query, answer in task.answers.items()]
        for task in tasks
        if task.answers and any(votes.predictions(task.id, query) for query in range(len(task.queries)))
    }
    hits = {k: [[rank <= k for rank in task] for task in ranks.values()] for k in pass_ks}
    shares = {k: math.fsum(sum(task) / len(task) for task in hit) for k, hit in hits.items()}
    return Score(
        pass_at={k: share / (len(ranks) or 1) for k, share in shares.items()},
        solved={k: sum(map(all, hit)) for k, hit in hits.items()},
        evaluated=len(ranks),
        total=len(tasks),
        by_task={task: sum(rank <= ATTEMPTS for rank in found) / len(found) for task, found in ranks.items()},
    )


def tells_more(k: int, variants: int) -> bool:
    """Whether pass@K says more than that of a smaller K where so many variants vote: each adds one candidate at most.
    pass@2, the ARC Prize's, is shown in any case."""
    return k <= max(variants, ATTEMPTS)


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """95 % score interval of a binomial proportion (Wilson 1927); (0, 1) without trials.

    Args:
      successes: may be fractional, for pass@K over tasks with several queries: `pass_at[K] * evaluated`.
    """
    if not trials:
        return 0.0, 1.0
    share, z2 = successes / trials, _Z95**2
    centre = share + z2 / (2 * trials)
    spread = _Z95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    low, high = ((centre + sign * spread) / (1 + z2 / trials) for sign in (-1, 1))
    return max(low, 0.0), min(high, 1.0)


def submission(votes: Votes, tasks: Sequence[Task]) -> dict[str, list[dict[str, list[list[int]]]]]:
    """The ARC Prize's submission: task id → per query `attempt_1`, `attempt_2`.

    A missing second attempt repeats the first. A query without any complete grid gets NO_ANSWER, as do the
    queries of a task that was not evaluated: the Prize wants every task.
    """

    def attempts(task_id: str, query: int) -> dict[str, list[list[int]]]:
        best = [candidate.grid.tolist() for candidate in votes.ranking(task_id, query)] or [NO_ANSWER]
        return {f"attempt_{n + 1}": best[min(n, len(best) - 1)] for n in range(ATTEMPTS)}

    return {task.id: [attempts(task.id, query) for query in range(len(task.queries))] for task in tasks}
