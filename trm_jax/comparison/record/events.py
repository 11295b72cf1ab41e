"""TensorBoard event files of any producer (tensorboardX, PyTorch, TensorFlow) → series and texts.

The files are read as what they are, length-prefixed protobuf records, because TensorBoard's own
EventAccumulator takes five times as long. A file that ends in the middle of a record (a run that was killed,
or is still going) gives all its whole records and a note; a value that is not finite is kept apart from the
series.
"""

import mmap
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.types_pb2 import (
    DT_BFLOAT16,
    DT_DOUBLE,
    DT_FLOAT,
    DT_HALF,
    DT_INT32,
    DT_INT64,
    DT_STRING,
)
from tensorboard.util.tensor_util import make_ndarray

from trm_jax.comparison.record.series import Series

EVENT_FILES = "*events.out.tfevents.*"
TEXT_SUFFIX = "/text_summary"  # what tensorboardX and torch append to the tag of a text
NUMBERS = {DT_BFLOAT16, DT_DOUBLE, DT_FLOAT, DT_HALF, DT_INT32, DT_INT64}
_LENGTH = struct.Struct("<Q")
_HEADER_BYTES = 12  # before a record: its length and a checksum of that
_FOOTER_BYTES = 4  # behind it: its checksum


class RunError(ValueError):
    """A run folder that cannot be compared; the message is one line that says why."""


@dataclass(frozen=True)
class Text:
    content: str
    step: int
    wall_s: float  # s since 1970


@dataclass
class _EventFile:
    # Of each tag its points in the order of writing: step, value, wall time, step, value, wall time, …
    # One flat array of machine numbers, because 50 MB of events are a million points.
    scalars: dict[str, array] = field(default_factory=dict)
    texts: dict[str, Text] = field(default_factory=dict)
    first_wall_s: float = np.inf
    last_wall_s: float = -np.inf


@dataclass(frozen=True)
class Events:
    """All event files of one run, restarts joined."""

    series: dict[str, Series]
    texts: dict[str, Text]  # the latest of each tag
    sessions_s: list[tuple[float, float]]  # first and last wall time of each file, in order
    notes: list[str]


def find_event_files(folder: Path) -> list[Path]:
    """The event files of one run: those in `folder`, or else those of the only folder below it that has some.

    Raises:
        RunError: there is no such folder, no event file, or more than one run below it.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: there is no such folder")
    files = sorted(folder.glob(EVENT_FILES)) or sorted(folder.rglob(EVENT_FILES))
    homes = sorted({str(file.parent) for file in files})
    if not files:
        raise RunError(f"{folder}: no event files ({EVENT_FILES}) in it or below it")
    if len(homes) > 1:
        raise RunError(f"{folder}: holds {len(homes)} runs; name them one by one: {' '.join(homes)}")
    return files


def read_events(folder: Path) -> Events:
    """Reads all scalars and texts of the run in `folder`.

    A restart repeats the steps since its last checkpoint: of every tag, the points of an earlier file from
    the later file's first step on are dropped, as TensorBoard does it.

    Raises:
        RunError: see `find_event_files`.
    """
    notes: list[str] = []
    files = []
    for path in find_event_files(folder):
        file, note = _read_file(path)
        files.append(file)
        notes += [note] if note else []
    files = sorted((file for file in files if file.first_wall_s < np.inf), key=lambda file: file.first_wall_s)
    tags = sorted({tag for file in files for tag in file.scalars})
    return Events(
        series={tag: _join([file.scalars[tag] for file in files if tag in file.scalars]) for tag in tags},
        texts={tag: text for file in files for tag, text in file.texts.items()},
        sessions_s=[(file.first_wall_s, file.last_wall_s) for file in files],
        notes=notes,
    )


def _read_file(path: Path) -> tuple[_EventFile, str]:
    """The whole records of one file, and a note on what is wrong with the rest ('' if nothing is)."""
    file = _EventFile()
    scalars = file.scalars
    count = 0
    try:
        for event in _records(path):
            wall_s = event.wall_time
            for value in event.summary.value:
                number = value.simple_value if value.HasField("simple_value") else _from_tensor(file, event, value)
                if number is None:
                    continue
                points = scalars.get(value.tag)
                if points is None:
                    points = scalars[value.tag] = array("d")
                points.extend((event.step, number, wall_s))
            if not count:
                file.first_wall_s = wall_s
            count += 1
            file.last_wall_s = wall_s
    except (DecodeError, EOFError) as error:
        return file, f"{path.name}: {error or 'a damaged record'}; the {count} records before it are used"
    return file, "" if count else f"{path.name}: is empty"


def _records(path: Path) -> Iterator[Event]:
    """Raises EOFError where the last record is cut short, DecodeError where one is no event."""
    size = path.stat().st_size
    if not size:
        return
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ) as data:
        start = 0
        while start < size:
            body = start + _HEADER_BYTES
            end = body + _LENGTH.unpack_from(data, start)[0] if body <= size else size
            if end + _FOOTER_BYTES > size:
                raise EOFError("ends within a record")
            yield Event.FromString(data[body:end])
            start = end + _FOOTER_BYTES


def _from_tensor(file: _EventFile, event: Event, value: Summary.Value) -> float | None:
    """The number in a tensor; a text goes to `file`; pictures, histograms and the like are passed over."""
    tensor = value.tensor
    if tensor.dtype == DT_STRING and tensor.string_val:
        text = b"\n".join(tensor.string_val).decode("utf-8", errors="replace")
        file.texts[value.tag.removesuffix(TEXT_SUFFIX)] = Text(text, event.step, event.wall_time)
    elif tensor.dtype in NUMBERS:
        numbers = make_ndarray(tensor)
        if numbers.size == 1:  # TensorFlow writes histograms as tensors too
            return float(numbers.reshape(()))
    return None


def _join(parts: list[array]) -> Series:
    """One series from the points of a tag in the files of a run, the earliest first."""
    points = np.empty((0, 3))
    for part in parts:
        later = np.frombuffer(part).reshape(-1, 3)
        points = np.concatenate([points[points[:, 0] < later[:, 0].min()], later])

    # Within one file a step may stand twice; what was written last counts.
    points = points[np.argsort(points[:, 0], kind="stable")]
    points = points[np.append(points[1:, 0] != points[:-1, 0], True)]
    steps, values, wall_s = np.ascontiguousarray(points.T)
    finite = np.isfinite(values)
    return Series(steps[finite], values[finite], wall_s[finite], bad_steps=steps[~finite])
