"""Ctrl-C and SIGTERM while a run trains: a request to stop after the running step, where the run can be saved."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """A run stopped because a signal asked it to, with everything saved."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + number  # as a shell reports a process that a signal ended


class StopRequest:
    """`signal` is the number of the signal that asked to stop, None as long as none did."""

    signal: int | None = None


@contextlib.contextmanager
def stop_request(listens: bool) -> Iterator[StopRequest]:
    """Within it the first of SIGNALS is only noted, and the second ends the process at once.

    Args:
        listens: False leaves the signals as they are: processes of one run that each stopped after another step
            would wait for each other for ever.
    """
    request = StopRequest()
    numbers = SIGNALS if listens else ()

    def note(number: int, _: FrameType | None) -> None:
        request.signal = number
        for each in numbers:
            signal.signal(each, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
