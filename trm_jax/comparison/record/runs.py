"""A training run: its series, its configuration, and the axes along which it can be laid over other runs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trm_jax.comparison.record.axes import Axis, axes_of
from trm_jax.comparison.record.configuration import load_config
from trm_jax.comparison.record.events import Events, RunError, read_events
from trm_jax.comparison.record.metrics import BY_TAG, SAMPLES, STEPS, STEPS_PER_SAMPLE, derived, steps_per_sample
from trm_jax.comparison.record.series import Series
from trm_jax.comparison.wording import percent

FAILED_TEXT = "failed"  # tag of the text in which a run says that it stopped on a value that is not finite
MIN_PROGRESS = 0.9  # share of its configured epochs that a run must have done to have final values
MODES = ("original", "online")
MODES_BY_NAME = {"o": "original", "r": "original", "l": "online"}  # E runs come in both


@dataclass(frozen=True, eq=False)
class Run:
    path: Path
    label: str
    mode: str  # "original" or "online"
    mode_is_inferred: bool  # from its name or its tags, for want of a configuration
    config: Mapping[str, Any]  # empty where it is not known
    series: dict[str, Series]
    axes: dict[str, Axis]  # a subset of metrics.AXES
    missing_axes: dict[str, str]  # the rest of them: why
    progress: float | None = None  # share of the configured epochs that is done; None where it is not known
    failure: str = ""  # the error on which the run stopped, where it has not gone on since
    notes: tuple[str, ...] = ()

    def setting(self, name: str) -> Any:
        """The configuration's `section.field`; None where it is not known."""
        section, field = name.split(".")
        return self.config.get(section, {}).get(field)

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
        return bool(self.failure) or any(self.series[tag].diverged() for tag in tags if tag in self.series)

    @property
    def is_unfinished(self) -> bool:
        return self.progress is not None and self.progress < MIN_PROGRESS

    @property
    def shortfall(self) -> str:
        """What an unfinished run has done instead of all its epochs; '' for a finished one."""
        if self.progress is None or not self.is_unfinished:
            return ""
        limit, spacing = self.setting("train.max_steps"), self.setting("train.log_every_steps") or 1
        if limit and self.last_step + spacing > limit:
            return f"was stopped by train.max_steps at {percent(self.progress)} of its epochs"
        return f"is at {percent(self.progress)} of its epochs"

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
    config = load_config(path, events, notes)
    if SAMPLES in events.series:
        events.series[SAMPLES] = events.series[SAMPLES].as_counter()
    recorded = config.get("mode", {}).get("name")
    if recorded not in (None, *MODES):
        raise RunError(f"{path}: its configuration says mode.name={recorded!r}; known are {', '.join(MODES)}")
    mode = recorded or _mode_of_name(label) or _mode_of_name(path.name) or _mode_of_tags(events)
    if config:
        config["mode"] = config.get("mode", {}) | {"name": mode}
    axes, missing = axes_of(events, config, mode)
    failure = _failure(events)
    if failure:
        notes.append(f"stopped with: {failure}")
    run = Run(
        path=path,
        label=label,
        mode=mode,
        mode_is_inferred=recorded is None,
        config=config,
        series=derived(events.series),
        axes=axes,
        missing_axes=missing,
        failure=failure,
        notes=tuple(notes),
    )
    return replace(run, series=run.series | _steps_per_sample(run), progress=_progress(run))


def _mode_of_name(name: str) -> str | None:
    """The mode of a run that is called as the plan calls them: `o2`, `L1_run`."""
    match = re.match(r"([orl])\d(?!\d)", name.lower())
    return MODES_BY_NAME[match.group(1)] if match else None


def _mode_of_tags(events: Events) -> str:
    return "original" if STEPS in events.series else "online"


def _failure(events: Events) -> str:
    """The first line of the error that a run stopped on, unless it has gone on past that step since."""
    text = events.texts.get(FAILED_TEXT)
    if text is None:
        return ""
    later = (
        ((series.steps > text.step) & (series.wall_s > text.wall_s)).any() for series in events.series.values()
    )
    lines = [line for line in text.content.strip("`\n ").splitlines() if line.strip()]
    return "" if any(later) else (lines or ["a value that is not finite"])[0].strip()


def _steps_per_sample(run: Run) -> dict[str, Series]:
    """The series `train/steps_per_sample` of a run of the original dynamics that counts its samples."""
    settings = run.setting("data.global_batch_size"), run.setting("arch.halt_max_steps")
    if run.mode != "original" or not all(settings) or SAMPLES not in run.series:
        return {}
    made = steps_per_sample(run.series[SAMPLES], *settings)
    return {} if made is None else {STEPS_PER_SAMPLE: made}


def _progress(run: Run) -> float | None:
    """Share of the configured epochs; a run that `max_steps` stops sooner has not done them."""
    epochs = run.setting("train.epochs")
    return run.end["epochs"] / epochs if epochs and "epochs" in run.axes else None
