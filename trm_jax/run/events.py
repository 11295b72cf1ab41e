"""Event files that are written at once, in no other thread, and that may fail without anybody waiting for them."""

import collections
import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from trm_jax.run.reasons import reason

RETRY_S = 10.0  # between trials
MOST_WAITING = 10_000  # events kept while none can be written


class EventFiles:
    """Appends to an event file in `folder`; after a failure it tries again, in a new file, with all that was missed.

    Args:
        first_step: what an earlier process wrote of this step and later ones is void.
        say: takes a line when writing begins to fail, and when it works again.
    """

    def __init__(self, folder: Path, first_step: int, say: Callable[[str], None]):
        self._folder, self._say = folder, say
        self._name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{first_step - 1}"
        self._files = 0
        self._file: RecordWriter | None = None
        self._whole = 0  # bytes of the file that hold complete records
        self._failed_at: float | None = None
        self._waiting: collections.deque[Event] = collections.deque(maxlen=MOST_WAITING)
        self._waiting.append(Event(wall_time=time.time(), step=first_step,
                                   session_log=SessionLog(status=SessionLog.START)))

    def add(self, summary: Summary, step: int | None = None) -> None:
        """Writes a summary, or keeps it for later."""
        self._waiting.append(Event(wall_time=time.time(), step=step, summary=summary))
        if self._failed_at is None or time.monotonic() - self._failed_at >= RETRY_S:
            self._write()

    def close(self) -> None:
        """Tries once more to write what waits."""
        if self._waiting:
            self._write()
        self._drop()

    def _path(self) -> Path:
        return self._folder / f"{self._name}.{self._files}"

    def _write(self) -> None:
        kept = len(self._waiting)
        try:
            if self._file is None:
                self._files += 1
                while self._path().exists():  # of an earlier start in this second
                    self._files += 1
                self._whole = 0
                self._file = RecordWriter(self._path().open("wb"))
                self._file.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            for event in self._waiting:
                self._file.write(event.SerializeToString())
            self._file.flush()
            self._whole = self._path().stat().st_size
        except OSError as error:
            self._drop()
            if self._failed_at is None:
                self._say(f"events cannot be written ({reason(error)}): the run goes on, and its charts are taken up "
                          "again when they can be")
            self._failed_at = time.monotonic()
            return
        self._waiting.clear()
        if self._failed_at is not None:
            self._failed_at = None
            self._say(f"events are written again, with the {kept} that were kept")

    def _drop(self) -> None:
        """Closes the file, without the record that may have been cut off at its end."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            self._file.close()
        self._file = None
        with contextlib.suppress(OSError):
            os.truncate(self._path(), self._whole) if self._whole else self._path().unlink()
