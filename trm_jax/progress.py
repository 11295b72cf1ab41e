"""How a run shows what it does: metrics to TensorBoard and a progress bar, without holding up a step."""

import time
from collections.abc import Iterator
from typing import Any

import jax
from tqdm import tqdm

from trm_jax.metrics import Metrics, summarise
from trm_jax.settings import Settings
from trm_jax.writer import Writer


class Progress:
    """Collects metrics on the device and logs their mean every so many steps, a step late: no step waits for it."""

    def __init__(self, settings: Settings, groups: int, writer: Writer, done: int, last_step: int, *,
                 show: bool):
        self._every = settings.train.log_every_steps
        self._batch = settings.data.global_batch_size
        self._groups = groups
        self._writer = writer
        self._bar = tqdm(total=last_step, initial=done, unit="step", disable=not show, mininterval=1.0)
        self._step = done
        self._window: list[Metrics] = []
        self._ready: tuple[int, list[Metrics], dict[str, float]] | None = None
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves out of the speed what happened since the last step."""
        self._since, self._timed, self._waited = time.perf_counter(), 0, 0.0

    def wait_for(self, batches: Iterator[Any]) -> Any:
        """The next batch; the time it takes is what perf/data_wait_ms says."""
        start = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - start
        return batch

    def add(self, metrics: Metrics) -> None:
        """Takes the metrics of a step that has been started, and logs the window before it once that is full."""
        self._step += 1
        self._timed += 1
        self._window.append(metrics)
        self._bar.update()
        self._log()
        if self._step % self._every == 0:
            self._close_window()

    def flush(self) -> None:
        """Logs everything up to now."""
        self._log()
        if self._window:
            self._close_window()
        self._log()

    def close(self) -> None:
        """Ends the progress bar."""
        self._bar.close()

    def _close_window(self) -> None:
        jax.block_until_ready(self._window[0])  # at most a window of steps is in flight
        now = time.perf_counter()
        seconds = (now - self._since) / self._timed if self._timed else float("nan")
        speed = {"perf/step_ms": 1e3 * seconds, "perf/samples_per_s": self._batch / seconds,
                 "perf/data_wait_ms": 1e3 * self._waited / max(self._timed, 1)}
        self._ready = (self._step, self._window, speed)
        self._window = []
        self.restart_clock()

    def _log(self) -> None:
        if self._ready is None:
            return
        step, window, speed = self._ready
        self._ready = None
        values = summarise(step - len(window) + 1, jax.device_get(window))
        values["samples"] = float(window[-1]["samples"].sum)  # a running total, not a mean
        tags = {name if "/" in name else f"train/{name}": value for name, value in values.items()}
        tags["train/epoch"] = step * self._batch / self._groups
        self._writer.scalars(step, tags | speed)
        shown = {"loss": values["loss"], "exact": values["exact_accuracy"]}
        shown |= {"steps": values["steps"]} if "steps" in values else {}
        self._bar.set_postfix({name: f"{value:.3f}" for name, value in shown.items()} |
                              {"samples/s": f"{speed['perf/samples_per_s']:.1f}"})
