"""A training run: its series, its configuration, and the axes along which it can be laid over other runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trm_jax.comparison.axes import Axis, axes_of
from trm_jax.comparison.events import Events, RunError, read_events
from trm_jax.comparison.metrics import BY_TAG, SAMPLES, STEPS, STEPS_PER_SAMPLE, derived, steps_per_sample
from trm_jax.comparison.series import Series

CONFIG_FILE = "config.json"
CONFIG_TEXT = "config"  # tag of the text that holds the configuration
MIN_PROGRESS = 0.9  # share of its configured training that a run must have done to have final values
MODES = ("original", "online")


@dataclass(frozen=True, eq=False)
class Run:
    path: Path
    label: str
    mode: str  # "original" or "online"
    mode_is_inferred: bool  # from the tags, for want of a configuration
    config: Mapping[str, Any]  # empty where it is not known
    series: dict[str, Series]
    axes: dict[str, Axis]  # a subset of metrics.AXES
    missing_axes: dict[str, str]  # the rest of them: why
    progress: float | None = None  # share of the configured training that is done; None where it is not known
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
        return any(self.series[tag].diverged() for tag in tags if tag in self.series)

    @property
    def is_unfinished(self) -> bool:
        return self.progress is not None and self.progress < MIN_PROGRESS

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
    if SAMPLES in events.series:
        events.series[SAMPLES] = events.series[SAMPLES].as_counter()
    mode = config.get("mode", {}).get("name")
    if mode not in (None, *MODES):
        raise RunError(f"{path}: its configuration says mode.name={mode!r}; known are {', '.join(MODES)}")
    inferred = "original" if STEPS in events.series else "online"
    axes, missing = axes_of(events, config, mode or inferred)
    run = Run(
        path=path,
        label=label,
        mode=mode or inferred,
        mode_is_inferred=mode is None,
        config=config,
        series=derived(events.series),
        axes=axes,
        missing_axes=missing,
        notes=tuple(notes),
    )
    return replace(run, series=run.series | _steps_per_sample(run), progress=_progress(run))


def _steps_per_sample(run: Run) -> dict[str, Series]:
    """The series `train/steps_per_sample` of a run of the original dynamics that counts its samples."""
    settings = run.setting("data.global_batch_size"), run.setting("arch.halt_max_steps")
    if run.mode != "original" or not all(settings) or SAMPLES not in run.series:
        return {}
    made = steps_per_sample(run.series[SAMPLES], *settings)
    return {} if made is None else {STEPS_PER_SAMPLE: made}


def _progress(run: Run) -> float | None:
    """Share of the configured training, which ends with its epochs or at `max_steps` if that is sooner."""
    shares = []
    if run.setting("train.max_steps"):
        shares.append(run.last_step / run.setting("train.max_steps"))
    if run.setting("train.epochs") and "epochs" in run.axes:
        shares.append(run.end["epochs"] / run.setting("train.epochs"))
    return max(shares, default=None)


def _load_config(path: Path, events: Events, notes: list[str]) -> dict[str, Any]:
    """The configuration beside the events or, in a folder without it, inside them; {} for none."""
    file = path / CONFIG_FILE
    if file.is_file():
        text, source = file.read_text(encoding="utf-8"), CONFIG_FILE
    elif CONFIG_TEXT in events.texts:
        text, source = events.texts[CONFIG_TEXT], f"text tag {CONFIG_TEXT!r}"
    else:
        return {}
    try:
        # TensorBoard shows texts as Markdown, so that the JSON may stand in a code block.
        return json.loads(text[text.find("{") : text.rfind("}") + 1])
    except json.JSONDecodeError as error:
        notes.append(f"{source}: not the JSON of a configuration ({error}); the run is read as having none")
        return {}
