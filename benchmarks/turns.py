"""Training updates of several sides that take turns in one process, on the same rows."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from benchmarks.memory import peak_gb
from trm_jax.data.pipeline import train_batches
from trm_jax.data.split import load_tasks
from trm_jax.dynamics.act import Batch
from trm_jax.errors import ConfigError
from trm_jax.run.settings import Settings

BATCHES = 4  # different ones, which take turns
CHECKED = 2  # updates whose losses are compared before anything is timed
AGREEMENT = {"float32": 1e-3, "bfloat16": 3e-2}  # largest relative difference of a loss
WITH_NOISE = 0.1  # of a variational encoder, whose noise each side draws for itself


class Side(Protocol):
    """Who computes the updates.

    Attributes:
        name: as a table shows it.
        compile_seconds: known from the start, or found as the excess of the first update.
        memory_gb: that an update takes at most, where the side knows.
    """

    name: str
    compile_seconds: float | None
    memory_gb: float | None

    def update(self, number: int, starting: np.ndarray) -> tuple[float, float]:
        """Update `number`, in which the rows that are `starting` (B,) take the batch's; seconds, and the mean loss."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """What was found out about a side; seconds of each update, compilation, and memory in 10⁹ bytes."""

    name: str
    seconds: tuple[float, ...]
    compile_seconds: float
    memory_gb: float | None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def load_batches(settings: Settings) -> list[Batch]:
    """Real rows of the preset's tasks. Raises TaskError where its source has none."""
    batches = train_batches(load_tasks(settings.data).train, settings.data, seed=0,
                            max_demos=settings.encoder.max_demos, process_index=0, process_count=1)
    return [next(batches) for _ in range(BATCHES)]


def starting_rows(settings: Settings, number: int, share: float) -> np.ndarray:
    """(B,) bool, the rows that start at an update: all at first and in online mode, then so many in turn."""
    rows = settings.data.global_batch_size
    if number == 0 or settings.mode.name == "online":
        return np.ones(rows, bool)
    count = int(np.ceil(share * rows))
    return np.isin(np.arange(rows), (number * count + np.arange(count)) % rows)


def take_turns(settings: Settings, sides: Sequence[Side], share: float, rounds: int) -> list[Timing]:
    """Times `rounds` updates of every side, of whose rows a `share` starts at each.

    Raises:
        ConfigError: their losses differ from those of the first side; nothing has been timed then.
    """
    first = _check(settings, sides, share)
    seconds: list[list[float]] = [[] for _ in sides]
    for number in range(CHECKED, CHECKED + rounds):
        starting = starting_rows(settings, number, share)
        for turn in range(len(sides)):
            who = (number + turn) % len(sides)  # nobody always goes first
            seconds[who].append(sides[who].update(number, starting)[0])
    timings = []
    for side, taken, at_first in zip(sides, seconds, first, strict=True):
        starting, memory = starting_rows(settings, CHECKED + rounds, share), side.memory_gb
        if memory is None:
            memory = peak_gb(lambda side=side, starting=starting: side.update(CHECKED + rounds, starting))
        compiling = side.compile_seconds
        compiling = max(at_first - max(taken), 0.0) if compiling is None else compiling
        timings.append(Timing(side.name, tuple(taken), compiling, memory))
    return timings


def _check(settings: Settings, sides: Sequence[Side], share: float) -> list[float]:
    """Seconds of the first update of every side, after the losses of the first few were found to be equal."""
    limit = WITH_NOISE if settings.encoder.variational else AGREEMENT[settings.arch.dtype.name]
    first: list[float] = []
    for number in range(CHECKED):
        found = [side.update(number, starting_rows(settings, number, share)) for side in sides]
        first = first or [seconds for seconds, _ in found]
        loss = found[0][1]
        for side, (_, other) in zip(sides, found, strict=True):
            if not abs(other - loss) <= limit * abs(loss):
                raise ConfigError(f"the losses of update {number + 1} differ: {loss:.6f} of {sides[0].name}, "
                                  f"{other:.6f} of {side.name}; nothing was timed")
    return first
