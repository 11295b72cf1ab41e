"""Signals while a run trains: a request to stop after the running step, where the run can be saved."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import FrameType

# Ctrl-C; what schedulers send before they kill; a terminal that is gone; what `#SBATCH --signal` is told to send.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
ECHO_S = 1.0  # a terminal that is gone is told by the kernel and by the shell: that is one signal, not two
GRACE_S = 0.5  # in which the main thread takes a second signal itself


class Interrupted(Exception):
    """A run stopped because a signal asked it to, with everything saved."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + number  # as a shell reports a process that a signal ended


class StopRequest:
    """`signal` is the number of the signal that asked to stop, 0 as long as none did."""

    def __init__(self) -> None:
        self.signal = 0
        self.at = 0.0

    def take(self, number: int, _: FrameType | None = None) -> None:
        """Notes the first signal; ends the process at the second, as that signal ends one by default."""
        if not self.signal:
            self.signal, self.at = number, time.monotonic()
        elif not self.echoes(number):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def echoes(self, number: int) -> bool:
        """Whether a signal only repeats the first."""
        return number == self.signal == signal.SIGHUP and time.monotonic() - self.at < ECHO_S


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Within it the first of SIGNALS is only noted, and the second ends the process at once.

    One that the process was started to ignore (nohup) stays ignored. Only the main thread can listen: in another one
    nothing is ever noted.
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
    threading.Thread(target=_end_a_stuck_process, args=(told, heard), daemon=True).start()
    for number in heard:
        signal.signal(number, request.take)
    try:
        yield request
    finally:
        for number in heard:
            signal.signal(number, before[number] or signal.SIG_DFL)
        signal.set_wakeup_fd(wakeup)
        tell.close()


def _end_a_stuck_process(told: socket.socket, heard: list[int]) -> None:
    """Ends the process at the second signal also while the main thread waits inside a library and hears none."""
    request = StopRequest()
    with told:
        while received := told.recv(1):
            number = received[0]
            if number in heard and not request.signal:
                request.take(number)
            elif number in heard and not request.echoes(number):
                time.sleep(GRACE_S)
                os._exit(128 + number)
