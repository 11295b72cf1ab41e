"""A run that hangs says where."""

import faulthandler
import sys
import time

REARM_S = 1.0  # at least, between two restarts that count: each starts a thread


class Stalls:
    """Writes the stacks of all threads to stderr when, and as often as, `minutes` pass without `restart`; 0: never.

    The interpreter's own watchdog does it, which needs no lock: also where a library holds all of them.
    """

    def __init__(self, minutes: float):
        self._seconds = 60 * minutes
        self._armed_at = -REARM_S
        self.restart()

    def restart(self) -> None:
        """A step has finished."""
        now = time.monotonic()
        if self._seconds and now - self._armed_at >= min(REARM_S, self._seconds / 2):
            faulthandler.dump_traceback_later(self._seconds, repeat=True, file=sys.__stderr__ or 2)
            self._armed_at = now

    def close(self) -> None:
        """Ends the watch."""
        if self._seconds:
            faulthandler.cancel_dump_traceback_later()
