"""TensorBoard event files of any writer (tensorboardX, PyTorch, TensorFlow) → the series and texts of a run."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.util.tensor_util import make_ndarray

from trm_jax.comparison.thresholds import THRESHOLDS

EVENT_FILES = "*events.out.tfevents.*"
TEXT_SUFFIX = "/text_summary"  # what tensorboardX and torch append to the tag of a text


class RunError(ValueError):
    """A run folder that cannot be compared; the message is one line that says why."""


@dataclass(frozen=True, eq=False)
class Series:
    """One scalar over a run, N points in order of steps; what is not finite is kept apart. A *step* is one batch."""

    steps: np.ndarray  # (N,) batches done, strictly increasing
    values: np.ndarray  # (N,)
    wall_s: np.ndarray  # (N,) s since 1970
    bad_steps: np.ndarray = field(default_factory=lambda: np.empty(0))  # steps of NaN and infinity

    def __len__(self) -> int:
        return len(self.steps)

    def until(self, step: float) -> "Series":
        """The series as it was when `step` batches were done."""
        keep = self.steps <= step
        return Series(self.steps[keep], self.values[keep], self.wall_s[keep], self.bad_steps[self.bad_steps <= step])

    def last_part(self) -> np.ndarray:
        """The values of the last tenth of the steps."""
        return self.values[self.steps >= (1 - THRESHOLDS.final_fraction) * self.steps[-1]]

    def diverged(self) -> bool:
        """Whether most of what was logged in the last tenth is not finite."""
        end = max([0.0, *self.steps[-1:], *self.bad_steps[-1:]])
        start = (1 - THRESHOLDS.final_fraction) * end
        return bool((self.bad_steps >= start).sum() > (self.steps >= start).sum())


@dataclass(frozen=True)
class Text:
    content: str
    step: int
    wall_s: float


@dataclass(frozen=True)
class Events:
    """All event files of one run, restarts joined."""

    series: dict[str, Series]
    texts: dict[str, Text]  # the latest of each tag
    sessions_s: list[tuple[float, float]]  # first and last wall time of each file, in order


def read_events(folder: Path) -> Events:
    """Reads all scalars and texts of the run in `folder`, or in the only folder below it that has event files.

    A restart repeats the steps since its last checkpoint: of every tag, the points of an earlier file from the later
    file's first step on are dropped, as TensorBoard does it. A file that ends within a record gives its whole ones.

    Raises:
        RunError: there is no such folder, no event file, or more than one run below it.
    """
    parts: list[tuple[float, float, dict[str, list[tuple[float, ...]]]]] = []
    texts: dict[str, Text] = {}
    for path in _files(folder):
        scalars: dict[str, list[tuple[float, ...]]] = {}
        walls: list[float] = []
        for event in LegacyEventFileLoader(str(path)).Load():
            walls.append(event.wall_time)
            for tag, found in _values(event):
                if isinstance(found, Text):
                    texts[tag] = max(found, texts.get(tag, found), key=lambda text: text.wall_s)
                else:
                    scalars.setdefault(tag, []).append((event.step, found, event.wall_time))
        if walls:
            parts.append((walls[0], walls[-1], scalars))
    parts.sort(key=lambda part: part[0])
    tags = sorted({tag for *_, scalars in parts for tag in scalars})
    series = {tag: _joined([np.array(scalars[tag]) for *_, scalars in parts if tag in scalars]) for tag in tags}
    return Events(series, texts, [(first, last) for first, last, _ in parts])


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise RunError(f"{folder}: there is no such folder")
    files = sorted(folder.glob(EVENT_FILES)) or sorted(folder.rglob(EVENT_FILES))
    homes = sorted({str(file.parent) for file in files})
    if not files:
        raise RunError(f"{folder}: no event files ({EVENT_FILES}) in it or below it")
    if len(homes) > 1:
        raise RunError(f"{folder}: holds {len(homes)} runs; name them one by one: {' '.join(homes)}")
    return files


def _values(event: Event) -> Iterator[tuple[str, float | Text]]:
    """Tag and number, or text, of all that an event holds; pictures, histograms and the like are passed over."""
    for value in event.summary.value:
        if value.HasField("simple_value"):
            yield value.tag, value.simple_value
        elif value.tensor.dtype == DT_STRING and value.tensor.string_val:
            content = b"\n".join(value.tensor.string_val).decode("utf-8", errors="replace")
            yield value.tag.removesuffix(TEXT_SUFFIX), Text(content.strip("`\n "), event.step, event.wall_time)
        elif value.tensor.dtype not in (0, DT_STRING):
            numbers = make_ndarray(value.tensor)
            if numbers.size == 1:  # TensorFlow writes histograms as tensors too
                yield value.tag, float(numbers.reshape(()))


def _joined(parts: list[np.ndarray]) -> Series:
    """One series of (step, value, wall time) rows, one array per file, the earliest first."""
    points = parts[0]
    for later in parts[1:]:
        points = np.concatenate([points[points[:, 0] < later[:, 0].min()], later])
    points = points[np.argsort(points[:, 0], kind="stable")]
    points = points[np.append(points[1:, 0] != points[:-1, 0], True)]  # within a file, what was written last counts
    finite = np.isfinite(points[:, 1])
    steps, values, wall_s = np.ascontiguousarray(points[finite].T)
    return Series(steps, values, wall_s, bad_steps=points[~finite, 0])
