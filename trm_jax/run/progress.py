"""How a run shows what it does: metrics to TensorBoard and a progress bar, without holding up a step."""

import dataclasses
import resource
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from trm_jax.dynamics.metrics import Mean, NonFiniteError, summarise
from trm_jax.run.bar import Bar
from trm_jax.run.settings import Settings
from trm_jax.run.writer import FAILED, Writer


class Progress:
    """Collects metrics on the device and logs their mean every so many steps, a step late: no step waits for it.

    Reading a window waits for its last step while the next one is under way; the time from one such moment to
    the next is what the window's steps took. The first step of a process compiles and is left out of the speed.
    """

    def __init__(self, settings: Settings, groups: int, writer: Writer, done: int, last_step: int, *,
                 show: bool):
        self._every = settings.train.log_every_steps
        self._batch = settings.data.global_batch_size
        self._groups = groups
        self._writer = writer
        self._bar = Bar(last_step, "train", "step", initial=done, show=show)
        self._step = done
        self._window = _Window()
        self._full: _Window | None = None
        self._since: float | None = None  # when the last step that has been timed was ready

    def restart_clock(self) -> None:
        """Leaves out of the speed what happened since the last step; all of them have been logged."""
        self._since = time.perf_counter()

    def wait_for(self, batches: Iterator[Any]) -> Any:
        """The next batch; the time it takes is what perf/data_wait_ms says."""
        start = time.perf_counter()
        batch = next(batches)
        self._window.waited += time.perf_counter() - start
        return batch

    def add(self, metrics: Mapping[str, Mean]) -> None:
        """Takes the metrics of a step that has been started, and logs the window before it once that is full."""
        self._step += 1
        self._window.metrics.append(metrics)
        if self._since is None:
            jax.block_until_ready(metrics)
            self.restart_clock()
            self._window.waited = 0.0
        else:
            self._window.timed += 1
        self._bar.update()
        self._log()
        if self._step % self._every == 0:
            self._close_window()

    def flush(self) -> None:
        """Logs everything up to now."""
        self._log()
        if self._window.metrics:
            self._close_window()
        self._log()

    def close(self) -> None:
        """Ends the progress bar."""
        self._bar.close()

    def _close_window(self) -> None:
        self._full, self._window = self._window, _Window()
        self._full.last_step = self._step

    def _log(self) -> None:
        if self._full is None:
            return
        window, self._full = self._full, None
        step = window.last_step
        metrics = [dict(metrics) for metrics in jax.device_get(window.metrics)]
        try:
            values = summarise(step - len(metrics) + 1, metrics)
        except NonFiniteError as error:
            self._writer.text(FAILED, str(error), step)
            raise
        values["samples"] = float(metrics[-1]["samples"].sum)  # a running total, not a mean
        tags = {name if "/" in name else f"train/{name}": value for name, value in values.items()}
        tags["train/epoch"] = step * self._batch / self._groups
        speed = self._speed(window)
        self._writer.scalars(step, tags | speed)
        shown = {"loss": values["loss"], "exact": values["exact_accuracy"]}
        shown |= {"steps": values["steps"]} if "steps" in values else {}
        shown |= {"samples/s": speed["perf/samples_per_s"]} if speed else {}
        self._bar.facts(**{name: f"{value:.1f}" if name == "samples/s" else f"{value:.3f}"
                           for name, value in shown.items()})

    def _speed(self, window: "_Window") -> dict[str, float]:
        """The perf/ tags of a window whose last step has just been seen to be ready; none where nothing was timed."""
        since, self._since = self._since, time.perf_counter()
        if since is None or not window.timed:
            return {}
        seconds = (self._since - since) / window.timed
        return {"perf/step_ms": 1e3 * seconds, "perf/samples_per_s": self._batch / seconds,
                "perf/data_wait_ms": 1e3 * window.waited / window.timed, **_memory()}


def _memory() -> dict[str, float]:
    """Most memory so far, in GB: of the process, and of its fullest device where the devices tell."""
    used = [stats["peak_bytes_in_use"] for device in jax.local_devices() if (stats := device.memory_stats())]
    found = {"perf/host_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}  # in kB
    return found | ({"perf/device_memory_gb": max(used) / 1e9} if used else {})


@dataclasses.dataclass
class _Window:
    """Steps that are logged together: their metrics on the device, how many are timed, seconds waited for data."""

    metrics: list[Mapping[str, Mean]] = dataclasses.field(default_factory=list)
    timed: int = 0
    waited: float = 0.0
    last_step: int = 0
