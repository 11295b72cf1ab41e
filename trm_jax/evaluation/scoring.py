"""What an evaluation is made of: how it is configured, the answer to each row, and what answers amount to."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from trm_jax.data.arc.voting import Votes


@dataclasses.dataclass(frozen=True)
class Answer:
    """What became of one row of an evaluation's plan.

    Attributes:
        row: its number.
        vote: as `Votes.to_list` has it.
        metrics: name → value of the row; how right it is stands there only where the answer is known.
        without_search: vote and metrics as they are from the encoder's context; None where that has answered.
    """

    row: int
    vote: list[Any]
    metrics: dict[str, float]
    without_search: dict[str, Any] | None = None

    def after_search(self, demo_loss: float, before: "Answer", start_loss: float) -> "Answer":
        """This answer, found by a latent search, with that from the encoder's context beside it.

        Args:
            demo_loss, start_loss: token loss of the demonstrations with the context that answered, and before.
        """
        return Answer(self.row, self.vote, self.metrics | {"demo_loss": demo_loss},
                      {"vote": before.vote, "metrics": before.metrics | {"demo_loss": start_loss}})


class Tally:
    """What the answers of one evaluation amount to. A new evaluation starts with a new one.

    Sums are taken in float64, one row after the other, so that neither batch size nor device count changes them.

    Attributes:
        votes: of every query.
        rows: how many answers have been counted.
        without_search: what they amount to without the latent search; None where there was none.
    """

    def __init__(self) -> None:
        self.votes = Votes()
        self.rows = 0
        self.without_search: Tally | None = None
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, answers: Iterable[Answer]) -> None:
        """Counts further answers. Raises ValueError where one is not that of the next row."""
        for answer in answers:
            if answer.row != self.rows:
                raise ValueError(f"the answer to row {answer.row} follows on {self.rows} answers")
            self.votes.extend([answer.vote])
            for name, value in answer.metrics.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1
            self.rows += 1
            if answer.without_search is not None:
                self.without_search = self.without_search or Tally()
                self.without_search.add([Answer(answer.row, **answer.without_search)])

    def means(self) -> dict[str, float]:
        """Metric → mean over the rows that have it."""
        return {name: total / self._counts[name] for name, total in self._sums.items()}
