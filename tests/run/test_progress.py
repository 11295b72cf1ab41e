"""Speed and windows of the log, with steps that take no time on a clock of our own."""

import jax
import numpy as np
import pytest

from configs import l1
from tests import tiny
from trm_jax.dynamics.metrics import Mean, NonFiniteError
from trm_jax.run import progress as progress_lib
from trm_jax.run.progress import Progress

EVERY, BATCH = 10, 32


class Device:
    """Steps of one second each that run one after another, on a clock that only waiting advances."""

    def __init__(self, monkeypatch):
        self.now, self.free = 0.0, 0.0  # the host's time; when the device will have done what it was given
        monkeypatch.setattr(progress_lib.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(progress_lib.jax, "block_until_ready", self.wait)
        monkeypatch.setattr(progress_lib.jax, "device_get", lambda window: [self.wait(step) for step in window])

    def step(self, seconds=1.0, loss=1.0):
        self.free = max(self.free, self.now) + seconds
        one = np.float32(1)
        metrics = {name: Mean(np.float32(loss), one) for name in ("loss", "exact_accuracy", "samples")}
        return metrics | {"ready": Mean(np.float32(self.free), one)}

    def wait(self, metrics):
        self.now = max(self.now, float(metrics["ready"].sum))
        return metrics


class Log:
    def __init__(self):
        self.scalars_at, self.texts = {}, {}

    def scalars(self, step, values):
        self.scalars_at[step] = values

    def text(self, tag, content, step):
        self.texts[tag] = content, step


@pytest.fixture
def run(monkeypatch):
    config = l1.get_config("tiny")
    config.train.log_every_steps = EVERY
    assert config.data.global_batch_size == BATCH
    log = Log()
    return Device(monkeypatch), log, Progress(tiny.settings(config), 32, log, done=0, last_step=100, show=False)


def test_every_window_says_what_a_step_takes(run):
    """Neither compilation nor an evaluation in between shows, and no window waits for the step under way."""
    device, log, progress = run
    progress.add(device.step(seconds=60.0))
    for step in range(2, 26):
        progress.add(device.step())
        if step == 11:
            assert 10 in log.scalars_at and device.now == device.free - 1
    progress.flush()
    device.now += 300.0  # an evaluation
    progress.restart_clock()
    for _ in range(16):
        progress.add(device.step())
    assert sorted(log.scalars_at) == [10, 20, 25, 30, 40]
    for values in log.scalars_at.values():
        assert values["perf/step_ms"] == pytest.approx(1000) and values["perf/samples_per_s"] == pytest.approx(BATCH)


def test_waiting_for_data_is_a_mean_over_the_steps(run):
    device, log, progress = run

    def batches():
        while True:
            device.now += 0.25
            yield None

    source = batches()
    for _ in range(21):
        progress.wait_for(source)
        progress.add(device.step())
    assert log.scalars_at[20]["perf/data_wait_ms"] == pytest.approx(250)


def test_a_window_that_is_not_finite_is_named_in_the_event_file(run):
    device, log, progress = run
    for _ in range(10):
        progress.add(device.step())
    progress.add(device.step(loss=np.nan))
    with pytest.raises(NonFiniteError, match="step 11: loss=nan"):
        progress.flush()
    text, step = log.texts["failed"]
    assert text.startswith("step 11: loss=nan") and step == 11


def test_on_a_real_device_metrics_are_means_of_their_window(monkeypatch):
    log = Log()
    config = l1.get_config("tiny")
    config.train.log_every_steps = EVERY
    progress = Progress(tiny.settings(config), 32, log, done=0, last_step=EVERY, show=False)
    for i in range(EVERY):
        value = Mean(jax.numpy.float32(i), jax.numpy.ones(()))
        progress.add({"loss": value, "exact_accuracy": value, "samples": value})
    progress.flush()
    (values,) = log.scalars_at.values()
    assert values["train/loss"] == pytest.approx(4.5) and values["train/samples"] == 9
