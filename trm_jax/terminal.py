"""How a command meets the outside: text in any encoding, readers that go early, and Ctrl-C from its first moment on."""

import codecs
import contextlib
import io
import os
import signal
import socket
import sys
import threading
from typing import Any

# Ctrl-C, and what schedulers and terminals that close send; whoever can save listens to them: see run/interrupt.py.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_ERRORS = "trm_jax.plain"
_PLAIN = {"…": "...", "×": "x", "–": "-", "—": "-", "−": "-", "─": "-", "→": "->", "≥": ">=", "≤": "<=", "·": "*",
          "±": "+-", "↑": "^", "↓": "v", "▶": ">", "“": '"', "”": '"', "’": "'"}


def start() -> None:
    """What every command does first, before its imports: they take seconds."""
    speak_plainly()
    end_on_interrupt()


class _Pipe(io.FileIO):
    """A stream whose reader may go (`… | head`): what is written after that is dropped, and the command goes on."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return len(data)


def speak_plainly() -> None:
    """Writes what the terminal's encoding lacks ("…", "×") in plain letters, and goes on where nobody reads any more;
    Python would end in a traceback."""
    codecs.register_error(_ERRORS, _in_plain_letters)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream is getattr(sys, f"__{name}__"):
            stream.flush()
            pipe = io.BufferedWriter(_Pipe(stream.fileno(), "w", closefd=False))
            setattr(sys, name, io.TextIOWrapper(pipe, stream.encoding, _ERRORS, line_buffering=stream.line_buffering,
                                                write_through=stream.write_through))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def end_on_interrupt() -> None:
    """From here on SIGNALS end the process at once, in one line, until another handler takes over.

    Also while a program compiles, for which Python's own handler would wait: a thread of its own listens. One that the
    process was started to ignore (nohup, a background job of a shell) stays ignored.
    """
    if _open:
        return  # it does already
    defaults = (signal.default_int_handler, signal.SIG_DFL)
    heeded = [number for number in SIGNALS if signal.getsignal(number) in defaults]

    def noted(*_: object) -> None:
        """Only there to be recognised: as long as it stands, nothing needs saving."""

    def listen() -> None:
        while number := heard.recv(1):
            if number[0] in heeded and signal.getsignal(number[0]) is noted:
                with contextlib.suppress(OSError):  # a terminal that is gone
                    os.write(2, b"\ninterrupted; the same command goes on from what has been saved\n")
                os._exit(128 + number[0])  # as a shell reports a process that a signal ended

    heard, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    for number in heeded:
        signal.signal(number, noted)
    threading.Thread(target=listen, daemon=True).start()
    _open.extend((heard, told))


_open: list[socket.socket] = []  # as long as the process


def is_a_command() -> bool:
    """Whether this process is one of the commands, and no notebook or program that has called one's functions."""
    return bool(_open)


def _in_plain_letters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(letter, "?") for letter in error.object[error.start:error.end]), error.end
