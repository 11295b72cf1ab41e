"""A training run: its series, what it was started as, and the axes along which it can be laid over other runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trm_jax.comparison.config import Config, Identity, identify, load_config
from trm_jax.comparison.evaluations import Evaluation, read_evaluations
from trm_jax.comparison.events import FAILED_TEXT, HOURS, RunError, Series, read_events
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.wording import percent
from trm_jax.metric_table import ANSWERED, BY_TAG, EXACT, LOSS, STEPS, TOKENS

AXES = {"epochs": "epochs", "updates": "optimiser updates", "samples": "samples seen", "hours": "hours"}
LOGGED = {"epochs": "train/epoch", "samples": "train/samples", "hours": HOURS}  # running totals: axis → tag


class Run:
    """One run, read.

    Attributes:
        config: empty where it is not known.
        axes: of AXES what is known, as batches done and the place there, linear between; nothing is guessed.
        failure: the error on which it stopped; "" where there was none, or it has gone on since.
        progress: share of the configured epochs that is done; None where it is not known.
        is_unfinished: it may still come to its end; one that diverged is at its end.
    """

    def __init__(self, path: Path, label: str, identity: Identity, config: Config, series: Mapping[str, Series],
                 evaluations: Sequence[Evaluation] = (), failure: str = "", notes: Sequence[str] = ()):
        self.path, self.label, self.identity, self.config, self.series = path, label, identity, config, series
        self.evaluations, self.failure, self.notes = evaluations, failure, notes
        self.mode, self.seed = identity.mode, int(self.setting("train.seed") or 0)
        self.last_step = max(one.last_step for one in series.values())  # batches done
        self.axes = self._axes()
        epochs = self.setting("train.epochs")
        self.progress = self.end("epochs") / epochs if epochs and "epochs" in self.axes else None
        learning = [series[tag] for tag in (LOSS, EXACT, ANSWERED, TOKENS) if tag in series]
        self.diverged = bool(failure) or any(one.diverged() for one in learning)
        self.is_unfinished = not self.diverged and (self.progress or 1) < THRESHOLDS.min_progress

    def setting(self, name: str) -> Any:
        """The configuration's `section.field`; None where it is not known."""
        section, field = name.split(".")
        return self.config.get(section, {}).get(field)

    def has(self, tag: str) -> bool:
        return tag in self.series and len(self.series[tag].steps) > 0

    def end(self, axis: str) -> float:
        return float(self.axes[axis][1][-1])

    @property
    def shortfall(self) -> str:
        """What an unfinished run has done instead of all its epochs."""
        limit, spacing = self.setting("train.max_steps"), self.setting("train.log_every_steps") or 1
        stopped = limit and self.last_step + spacing > limit
        return f"{'was stopped by train.max_steps' if stopped else 'is'} at {percent(self.progress or 0)} of its epochs"

    def _axes(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """From 0 to the last step: as logged, or else in proportion to the batches."""
        batch_size = self.setting("data.global_batch_size")
        groups = self.identity.train_tasks or self.setting("data.max_train_groups")
        rates = {"epochs": batch_size / groups if batch_size and groups else None, "samples": batch_size,
                 "updates": 1 if self.mode == "original" else self.setting("mode.num_act_steps")}
        axes = {axis: (np.array([0.0, self.last_step]), np.array([0.0, rate * self.last_step]))
                for axis, rate in rates.items() if rate}
        for axis, tag in LOGGED.items():
            if self.has(tag):
                steps, values = self.series[tag].steps, self.series[tag].values
                rise = np.diff(values, prepend=0.0)
                x = np.cumsum(np.where(rise >= 0, rise, 0.0 if tag == HOURS else values))  # a restart counts anew
                axes[axis] = (np.concatenate([[0.0], steps, [self.last_step]]),
                              np.concatenate([[0.0], x, [x[-1] * self.last_step / max(steps[-1], 1)]]))
        return axes


def load_run(path: Path, label: str) -> Run:
    """Reads the run in the folder `path`.

    Raises:
        RunError: no folder, no event files, or nothing in them that the comparison knows.
    """
    series, texts = read_events(path)
    known = [tag for tag in series if tag in BY_TAG]
    if not known:
        seen = ", ".join([tag for tag in series if tag != HOURS][:4]) or "none"
        raise RunError(f"{path}: no known scalar tag (found: {seen}); expected train/exact_accuracy, eval/pass@2, …")
    bad = {tag: len(series[tag].bad_steps) for tag in known}
    notes = [f"{tag}: {count} of its points are not finite" for tag, count in bad.items() if count]
    config = load_config(path, texts, notes)
    step, text = texts.get(FAILED_TEXT, (0, ""))
    has_gone_on = any(one.last_step > step for one in series.values())
    failure = "" if has_gone_on else text.partition("\n")[0]
    notes += [f"stopped with: {failure}"] if failure else []
    identity = identify(path, label, config, STEPS in series)
    return Run(path, label, identity, config, series, read_evaluations(path, notes), failure, notes)
