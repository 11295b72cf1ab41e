"""TensorBoard event files of any writer (ours, tensorboardX, PyTorch, TensorFlow) → the series and texts of a run."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.util.tensor_util import make_ndarray

from trm_jax.comparison.thresholds import THRESHOLDS

EVENT_FILES = "*events.out.tfevents.*"
TEXT_SUFFIX = "/text_summary"  # what most writers append to the tag of a text
HOURS = "hours"  # the series that reading adds: how long processes had been writing this run
Text = tuple[int, str]  # step and content
Points = dict[str, dict[float, float]]  # tag → step → value


class RunError(ValueError):
    """A run folder that cannot be compared; the message is one line that says why."""


@dataclass(frozen=True, eq=False)
class Series:
    """One scalar over a run, N points in order of steps; what is not finite is kept apart. A *step* is one batch."""

    steps: np.ndarray  # (N,) batches done, strictly increasing
    values: np.ndarray  # (N,)
    bad_steps: np.ndarray = field(default_factory=lambda: np.empty(0))  # steps of NaN and infinity

    @property
    def last_step(self) -> float:
        return float(max(self.steps.max(initial=0), self.bad_steps.max(initial=0)))

    def last_part(self, end: float = np.inf) -> np.ndarray:
        """The values of the last tenth of the steps up to `end`."""
        steps = self.steps[self.steps <= end]
        return self.values[:len(steps)][steps >= (1 - THRESHOLDS.final_fraction) * steps.max(initial=0)]

    def diverged(self) -> bool:
        """Whether most of what was logged in the last tenth is not finite."""
        start = (1 - THRESHOLDS.final_fraction) * self.last_step
        return bool((self.bad_steps >= start).sum() > (self.steps >= start).sum())


def read_events(folder: Path) -> tuple[dict[str, Series], dict[str, Text]]:
    """All scalars, and the latest texts, of the run in `folder` or in the only one below it, by tag.

    A restart repeats the steps since its last checkpoint: of every tag, the points of an earlier file from the later
    file's first step on are dropped, as TensorBoard does it. A file that ends within a record gives its whole ones.
    Raises RunError: no such folder, no event file, several runs below it, or no record with its checksum.
    """
    paths = sorted(folder.glob(EVENT_FILES)) or sorted(folder.rglob(EVENT_FILES))
    if not paths:
        raise RunError(f"{folder}: " + (f"no event files ({EVENT_FILES}) in it or below it" if folder.is_dir() else
                                        "there is no such folder"))
    if len(homes := sorted({str(path.parent) for path in paths})) > 1:
        raise RunError(f"{folder}: holds {len(homes)} runs; name them one by one: {' '.join(homes)}")
    files = sorted((file for file in map(_read, paths) if file[0]), key=lambda file: file[0][0])
    if not files:
        raise RunError(f"{paths[0]}: no record in it has a right checksum, so that TensorBoard reads nothing of it "
                       "either: it is empty or damaged, or its writer leaves checksums out")
    points: Points = defaultdict(dict)
    texts: dict[str, Text] = {}
    elapsed_s, end_s = 0.0, 0.0
    for walls_s, found, file_texts in files:
        start_s = max(walls_s[0], end_s)  # two writers at once count once, and the time between two not at all
        found[HOURS] = {step: (elapsed_s + max(wall_s - start_s, 0.0)) / 3600 for step, wall_s in found[HOURS].items()}
        elapsed_s, end_s = elapsed_s + max(walls_s[-1] - start_s, 0.0), max(walls_s[-1], end_s)
        texts |= file_texts
        for tag, later in found.items():
            first = min(later, default=np.inf)
            points[tag] = {step: value for step, value in points[tag].items() if step < first} | later
    return {tag: _series(found) for tag, found in sorted(points.items()) if found}, texts


def _read(path: Path) -> tuple[list[float], Points, dict[str, Text]]:
    """Of one file: wall time of every event, in s; its scalars, with wall times as HOURS; its texts."""
    walls_s, texts = [], {}
    points: Points = defaultdict(dict)
    for event in LegacyEventFileLoader(str(path)).Load():
        walls_s.append(event.wall_time)
        found = {}
        for value in event.summary.value:  # pictures, histograms and the like are passed over
            if value.HasField("simple_value"):
                found[value.tag] = value.simple_value
            elif value.tensor.dtype == DT_STRING and value.tensor.string_val:
                content = b"\n".join(value.tensor.string_val).decode("utf-8", errors="replace").strip("`\n ")
                texts[value.tag.removesuffix(TEXT_SUFFIX)] = event.step, content
            elif value.tensor.dtype not in (0, DT_STRING) and (numbers := make_ndarray(value.tensor)).size == 1:
                found[value.tag] = float(numbers.reshape(()))  # TensorFlow writes histograms as tensors too
        for tag, number in (found | {HOURS: event.wall_time} if found else {}).items():
            points[tag][event.step] = number  # what was written last counts
    return walls_s, points, texts


def _series(points: Mapping[float, float]) -> Series:
    steps, values = np.array(sorted(points.items()), float).T
    finite = np.isfinite(values)
    return Series(steps[finite], values[finite], bad_steps=steps[~finite])
