"""A trace of some steps, for TensorBoard's profiler."""

from pathlib import Path

import jax

from trm_jax.dynamics.metrics import Packed
from trm_jax.errors import ConfigError


class Profile:
    """Traces the steps START to STOP into the run's folder.

    Args:
        steps: "START:STOP"; nothing for None.

    Raises:
        ConfigError: `steps` is not of that form.
    """

    def __init__(self, steps: str | None, workdir: Path):
        start, colon, stop = (steps or "0:0").partition(":")
        if not (colon and start.isdecimal() and stop.isdecimal() and (steps is None or 0 < int(start) <= int(stop))):
            raise ConfigError(f"--profile={steps} must be START:STOP, two numbers of steps, the first at least 1")
        self._start, self._stop, self._folder = int(start), int(stop), workdir
        self._tracing = False

    def begin(self, done: int, last: int) -> list[str]:
        """Begins the trace where the step behind `done` is one of it; a line for the log where none up to `last` is."""
        if self._start <= done + 1 <= min(self._stop, last):
            self._trace()
        elif self._stop and not done < self._start <= last:
            return [f"--profile={self._start}:{self._stop}: nothing is traced, as this start makes the steps "
                    f"{done + 1} to {last}"]
        return []

    def finished(self, done: int, metrics: Packed) -> None:
        """Begins or ends the trace behind a step, whose `metrics` say when it has really finished."""
        if done == self._start - 1 or (self._tracing and done >= self._stop):
            jax.block_until_ready(metrics)
            self.close()
            if done == self._start - 1:
                self._trace()

    def _trace(self) -> None:
        jax.profiler.start_trace(str(self._folder))
        self._tracing = True

    def close(self) -> None:
        """Ends a trace that has begun."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
