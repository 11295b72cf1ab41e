"""A training run: its series, its configuration, and the axes along which it can be laid over other runs.

An axis that cannot be computed is missing with a reason, never guessed: a PyTorch run carries no configuration, so its
batch size and its number of groups are unknown.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trm_jax.comparison.events import Events, RunError, read_events
from trm_jax.comparison.metrics import BY_TAG, derived
from trm_jax.comparison.series import Series

CONFIG_FILE = "config.json"
CONFIG_TEXT = "config"  # tag of the text that holds the configuration
MODES = ("original", "online")


@dataclass(frozen=True, eq=False)
class Axis:
    """Piecewise linear from batches done to updates, samples, epochs or hours; prolonged at both ends."""

    steps: np.ndarray
    x: np.ndarray

    def __call__(self, steps: np.ndarray | float) -> np.ndarray:
        return _prolonged_interp(np.asarray(steps, float), self.steps, self.x)

    def step_at(self, x: float) -> float:
        return float(_prolonged_interp(np.asarray(x, float), self.x, self.steps))


@dataclass(frozen=True, eq=False)
class Run:
    path: Path
    label: str
    mode: str  # "original" or "online"
    mode_is_inferred: bool  # from the tags, for want of a configuration
    config: Mapping[str, Any] | None
    series: dict[str, Series]
    axes: dict[str, Axis]  # a subset of metrics.AXES
    missing_axes: dict[str, str]  # the rest of them: why
    progress: float | None = None  # share of the configured training that is done; None where it is not known
    notes: tuple[str, ...] = ()

    def setting(self, name: str) -> Any:
        """The configuration's `section.field`; None where it is not known."""
        section, field = name.split(".")
        return (self.config or {}).get(section, {}).get(field)

    @property
    def last_step(self) -> int:
        """Batches done; points that are not finite count."""
        ends = [steps[-1] for s in self.series.values() for steps in (s.steps, s.bad_steps) if len(steps)]
        return int(max(ends))

    @property
    def end(self) -> dict[str, float]:
        """How long the run is on each of its axes."""
        return {name: float(axis(self.last_step)) for name, axis in self.axes.items()}

    @property
    def diverged(self) -> bool:
        tags = ("train/loss", "train/lm_loss", "train/accuracy")
        return any(self.series[tag].diverged() for tag in tags if tag in self.series)

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
        raise RunError(
            f"{path}: no known scalar tag (found: {seen}); expected train/accuracy, eval/pass@2, …"
        )
    notes = list(events.notes)
    notes += [
        f"{tag}: {len(events.series[tag].bad_steps)} of its points are not finite and left out"
        for tag in known
        if len(events.series[tag].bad_steps)
    ]
    config = _load_config(path, events, notes)
    mode = ((config or {}).get("mode") or {}).get("name")
    if mode not in (None, *MODES):
        raise RunError(f"{path}: its configuration says mode.name={mode!r}; known are {', '.join(MODES)}")
    inferred = "original" if "train/steps" in events.series else "online"
    axes, missing = _axes(events, config, mode or inferred)
    run = Run(
        path=path,
        label=label,
        mode=mode or inferred,
        mode_is_inferred=mode is None,
        config=config,
        series=derived(
            {tag: series for tag, series in events.series.items() if len(series) or len(series.bad_steps)}
        ),
        axes=axes,
        missing_axes=missing,
        notes=tuple(notes),
    )
    return replace(run, progress=_progress(run))


def _progress(run: Run) -> float | None:
    if run.setting("train.max_steps"):
        return run.last_step / run.setting("train.max_steps")
    if run.setting("train.epochs") and "epochs" in run.axes:
        return run.end["epochs"] / run.setting("train.epochs")
    return None


def _load_config(path: Path, events: Events, notes: list[str]) -> dict[str, Any] | None:
    """The configuration beside the events or, where a folder was copied without it, inside them."""
    file = path / CONFIG_FILE
    if file.is_file():
        text, source = file.read_text(encoding="utf-8"), CONFIG_FILE
    elif CONFIG_TEXT in events.texts:
        text, source = events.texts[CONFIG_TEXT], f"text tag {CONFIG_TEXT!r}"
    else:
        return None
    try:
        config = json.loads(
            text[text.find("{") : text.rfind("}") + 1]
        )  # the text may stand in a Markdown code block
    except json.JSONDecodeError as error:
        notes.append(
            f"{source}: not the JSON of a configuration ({error}); the run is treated as having none"
        )
        return None
    return config


def _axes(events: Events, config: dict[str, Any] | None, mode: str) -> tuple[dict[str, Axis], dict[str, str]]:
    """The axes of a run, and the reasons of those it has not."""
    mode_section, data = (config or {}).get("mode", {}), (config or {}).get("data", {})
    batch_size, groups = data.get("global_batch_size"), data.get("max_train_groups")
    axes, missing = {}, {}

    if mode == "original":
        axes["updates"] = _proportional(1)
    elif mode_section.get("num_act_steps"):
        axes["updates"] = _proportional(mode_section["num_act_steps"])
    else:
        missing["updates"] = "no configuration: the updates per batch are not known"

    if _has_points(events, "train/samples"):
        axes["samples"] = _logged(events.series["train/samples"])
    elif batch_size:
        axes["samples"] = _proportional(batch_size)
    else:
        missing["samples"] = "neither train/samples nor a batch size"

    if _has_points(events, "train/epoch"):
        axes["epochs"] = _logged(events.series["train/epoch"])
    elif batch_size and groups:
        axes["epochs"] = _proportional(batch_size / groups)
    else:
        missing["epochs"] = "neither train/epoch nor a batch size and a number of groups"

    hours = _hours(events)
    if hours is None:
        missing["hours"] = "a single logged step has no duration"
    else:
        axes["hours"] = hours
    return axes, missing


def _has_points(events: Events, tag: str) -> bool:
    return tag in events.series and len(events.series[tag]) > 0


def _proportional(rate: float) -> Axis:
    return Axis(np.array([0.0, 1.0]), np.array([0.0, float(rate)]))


def _logged(series: Series) -> Axis:
    """An axis that the run logged itself; it starts at 0."""
    after_start = series.steps > 0
    steps, x = series.steps[after_start].astype(float), series.values[after_start]
    return Axis(np.concatenate([[0.0], steps]), np.maximum.accumulate(np.concatenate([[0.0], x])))


def _hours(events: Events) -> Axis | None:
    """Hours that a process was writing this run; the time between two sessions does not count."""
    densest = max(events.series.values(), key=len)
    if len(densest) < 2:
        return None
    knots, elapsed = [], []
    total = 0.0
    end = -np.inf
    for first, last in sorted(events.sessions_s):
        first = max(first, end)  # two writers at once count once
        if last > first:
            knots += [first, last]
            elapsed += [total, total + last - first]
            total, end = elapsed[-1], last
    if not total:
        return None
    hours = np.interp(densest.wall_s, knots, elapsed) / 3600
    return Axis(densest.steps.astype(float), np.maximum.accumulate(hours))


def _prolonged_interp(x: np.ndarray, knots: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Linear interpolation that goes on with the mean slope beyond the last knot and stays flat before the first."""
    slope = (values[-1] - values[0]) / (knots[-1] - knots[0]) if knots[-1] > knots[0] else 0.0
    return np.interp(x, knots, values) + np.maximum(x - knots[-1], 0) * slope
