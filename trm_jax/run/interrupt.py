"""Signals while a run trains: a request to stop after the running step, where the run can be saved."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from trm_jax.terminal import SIGNALS, is_a_command

ECHO_S = 1.0  # a terminal that is gone is told by the kernel and by the shell: that is one signal, not two
GRACE_S = 0.5  # in which the main thread takes a second signal itself
PATIENCE_S = 8.0  # in which the main thread finds time for the first; then it waits for something, e.g. a compiler


class BrokenOff(Exception):
    """An evaluation ends before its end, as a signal has asked to stop."""


class Interrupted(Exception):
    """A run stopped because a signal asked it to, with everything saved."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + number  # as a shell reports a process that a signal ended


class StopRequest:
    """A signal that has asked to stop.

    Attributes:
        signal: its number, 0 as long as there was none.
        heeded: whether the run is stopping in order because of it.
        parting: the line to end with where the process may end right now, None where something would be lost.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.heeded = False
        self.parting: Callable[[], str | None] = lambda: None
        self._at = 0.0

    def take(self, number: int, _: FrameType | None = None) -> None:
        """Notes the first signal; ends the process at the second, as that signal ends one by default."""
        if not self.signal:
            self.signal, self._at = number, time.monotonic()
        elif not self.echoes(number):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def echoes(self, number: int) -> bool:
        """Whether a signal only repeats the first."""
        return number == self.signal == signal.SIGHUP and time.monotonic() - self._at < ECHO_S

    @property
    def waits(self) -> bool:
        """Whether the signal came PATIENCE_S ago."""
        return self.signal > 0 and time.monotonic() - self._at >= PATIENCE_S


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Within it the first of SIGNALS is only noted, and the second ends the process at once.

    Where the first is not heeded for PATIENCE_S, since the main thread waits inside a library, and nothing would be
    lost, it ends the process too, if that is a command's own. One that the process was started to ignore (nohup) stays
    ignored. Only the main thread can listen: in another one nothing is ever noted.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
    told, tell = socket.socketpair()
    tell.setblocking(False)
    wakeup = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_a_stuck_process, args=(told, heard, request), daemon=True).start()
    for number in heard:
        signal.signal(number, request.take)
    try:
        yield request
    finally:
        for number in heard:
            signal.signal(number, before[number] or signal.SIG_DFL)
        signal.set_wakeup_fd(wakeup)
        tell.close()


def _end_a_stuck_process(told: socket.socket, heard: list[int], request: StopRequest) -> None:
    """Ends the process while the main thread waits inside a library and hears of no signal; see `stop_request`."""
    noted = StopRequest()  # what the main thread's would be if it heard
    with told:
        while True:
            told.settimeout(GRACE_S if noted.signal else None)
            try:
                received = told.recv(1)
            except TimeoutError:
                if noted.waits and is_a_command() and not request.heeded and (line := request.parting()):
                    with contextlib.suppress(OSError):  # a terminal that is gone
                        os.write(2, f"\n{line}\n".encode())
                    os._exit(128 + noted.signal)
                continue
            if not received:
                return
            number = received[0]
            if number in heard and not noted.signal:
                noted.take(number)
            elif number in heard and not noted.echoes(number):
                time.sleep(GRACE_S)
                os._exit(128 + number)
