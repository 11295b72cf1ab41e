"""A training run: its series, what it was started as, and the axes along which it can be laid over other runs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trm_jax.comparison.config import Config, Identity, identify, load_config
from trm_jax.comparison.evaluations import Evaluation, read_evaluations
from trm_jax.comparison.events import Events, RunError, Series, read_events
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.wording import percent
from trm_jax.metric_table import ANSWERED, BY_TAG, EXACT, LOSS, STEPS, TOKENS

AXES = {"epochs": "epochs", "updates": "optimiser updates", "samples": "samples seen", "hours": "hours"}
SAMPLES, EPOCH = "train/samples", "train/epoch"  # running totals that a run logs itself
FAILED_TEXT = "failed"  # tag of the text in which a run says that it stopped on a value that is not finite


@dataclass(frozen=True, eq=False)
class Axis:
    """Piecewise linear from batches done to epochs, updates, samples or hours, prolonged beyond its last knot."""

    steps: np.ndarray
    x: np.ndarray

    def __call__(self, step: float) -> float:
        return _prolonged(step, self.steps, self.x)

    def step_at(self, x: float) -> float:
        return _prolonged(x, self.x, self.steps)


@dataclass(frozen=True, eq=False)
class Run:
    path: Path
    label: str
    identity: Identity
    config: Config  # empty where it is not known
    series: Mapping[str, Series]
    axes: Mapping[str, Axis]  # a subset of AXES: what cannot be computed is never guessed
    evaluations: tuple[Evaluation, ...] = ()  # full ones, of `evaluate`
    progress: float | None = None  # share of the configured epochs that is done; None where it is not known
    failure: str = ""  # the error on which it stopped, where it has not gone on since
    notes: tuple[str, ...] = ()

    @property
    def mode(self) -> str:
        return self.identity.mode

    @property
    def seed(self) -> int:
        return int(self.setting("train.seed") or 0)

    def setting(self, name: str) -> Any:
        """The configuration's `section.field`; None where it is not known."""
        section, field = name.split(".")
        return self.config.get(section, {}).get(field)

    def has(self, tag: str) -> bool:
        return tag in self.series and len(self.series[tag]) > 0

    @property
    def last_step(self) -> float:
        """Batches done; points that are not finite count."""
        return float(max(steps[-1] for s in self.series.values() for steps in (s.steps, s.bad_steps) if len(steps)))

    def end(self, axis: str) -> float:
        return self.axes[axis](self.last_step)

    @property
    def diverged(self) -> bool:
        tags = [tag for tag in (LOSS, EXACT, ANSWERED, TOKENS) if tag in self.series]
        return bool(self.failure) or any(self.series[tag].diverged() for tag in tags)

    @property
    def is_unfinished(self) -> bool:
        """It may still come to its end: one that diverged is at its end."""
        return not self.diverged and self.progress is not None and self.progress < THRESHOLDS.min_progress

    @property
    def shortfall(self) -> str:
        """What an unfinished run has done instead of all its epochs."""
        limit, spacing = self.setting("train.max_steps"), self.setting("train.log_every_steps") or 1
        stopped = limit and self.last_step + spacing > limit
        return f"{'was stopped by train.max_steps' if stopped else 'is'} at {percent(self.progress or 0)} of its epochs"

    def until(self, step: float) -> "Run":
        """The run as it was when `step` batches were done."""
        cut = {tag: series.until(step) for tag, series in self.series.items()}
        return replace(self, series={tag: series for tag, series in cut.items() if len(series)})


def load_run(path: Path, label: str) -> Run:
    """Reads the run in the folder `path`.

    Raises:
        RunError: no folder, no event files, or nothing in them that the comparison knows.
    """
    events = read_events(path)
    known = [tag for tag in events.series if tag in BY_TAG]
    if not known:
        seen = ", ".join(sorted(events.series)[:4]) or "none"
        raise RunError(f"{path}: no known scalar tag (found: {seen}); expected train/exact_accuracy, eval/pass@2, …")
    bad = {tag: len(events.series[tag].bad_steps) for tag in known if len(events.series[tag].bad_steps)}
    notes = [f"{tag}: {count} of its points are not finite" for tag, count in bad.items()]
    config = load_config(path, events.texts, notes)
    identity = identify(path, label, config, STEPS in events.series)
    failure = _failure(events)
    if failure:
        notes.append(f"stopped with: {failure}")
    axes = _axes(events, config, identity)
    run = Run(path, label, identity, config, events.series, axes, read_evaluations(path, notes), failure=failure,
              notes=tuple(notes))
    epochs = run.setting("train.epochs")
    return replace(run, progress=run.end("epochs") / epochs) if epochs and "epochs" in axes else run


def _axes(events: Events, config: Config, identity: Identity) -> dict[str, Axis]:
    data = config.get("data", {})
    batch_size, groups = data.get("global_batch_size"), identity.train_tasks or data.get("max_train_groups")
    per_batch = 1 if identity.mode == "original" else config.get("mode", {}).get("num_act_steps")
    found = {
        "epochs": _logged(events, EPOCH) or _proportional(batch_size / groups if batch_size and groups else None),
        "updates": _proportional(per_batch),
        "samples": _logged(events, SAMPLES) or _proportional(batch_size),
        "hours": _hours(events),
    }
    return {name: axis for name, axis in found.items() if axis is not None}


def _proportional(rate: float | None) -> Axis | None:
    return Axis(np.array([0.0, 1.0]), np.array([0.0, float(rate)])) if rate else None


def _logged(events: Events, tag: str) -> Axis | None:
    """An axis that the run logged itself, from 0; what a restart has set back to zero is put back."""
    if tag not in events.series or not len(events.series[tag]):
        return None
    series = events.series[tag]
    rise = np.diff(series.values, prepend=0.0)
    x = np.cumsum(np.where(rise < 0, series.values, rise))
    return Axis(np.append(0.0, series.steps), np.append(0.0, x))


def _hours(events: Events) -> Axis | None:
    """Hours that a process was writing this run; the time between two sessions does not count."""
    densest = max(events.series.values(), key=len)
    if len(densest) < 2:
        return None
    knots, elapsed, end = [-np.inf], [0.0], -np.inf
    for first, last in events.sessions_s:
        first = max(first, end)  # two writers at once count once
        if last > first:
            knots += [first, last]
            elapsed += [elapsed[-1], elapsed[-1] + last - first]
            end = last
    hours = np.interp(densest.wall_s, knots[1:], elapsed[1:]) / 3600
    return Axis(np.append(0.0, densest.steps), np.append(0.0, np.maximum.accumulate(hours)))


def _prolonged(x: float, knots: np.ndarray, values: np.ndarray) -> float:
    """Linear interpolation, with the mean slope beyond the last knot."""
    slope = (values[-1] - values[0]) / (knots[-1] - knots[0]) if knots[-1] > knots[0] else 0.0
    return float(np.interp(x, knots, values) + max(x - knots[-1], 0.0) * slope)


def _failure(events: Events) -> str:
    """The first line of the error that a run stopped on, unless it has gone on past that step since."""
    text = events.texts.get(FAILED_TEXT)
    if text is None or any(((series.steps > text.step) & (series.wall_s > text.wall_s)).any()
                           for series in events.series.values()):
        return ""
    return next((line.strip() for line in text.content.splitlines() if line.strip()), "a value that is not finite")
