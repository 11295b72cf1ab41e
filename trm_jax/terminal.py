"""How a command meets the outside: text in any encoding, and Ctrl-C from its first moment on."""

import codecs
import io
import os
import signal
import socket
import sys
import threading

ENDED = 128 + signal.SIGINT  # exit status, as a shell reports a process that Ctrl-C ended
_ERRORS = "trm_jax.plain"
_PLAIN = {"…": "...", "×": "x", "–": "-", "—": "-", "−": "-", "─": "-", "→": "->", "≥": ">=", "≤": "<=", "·": "*",
          "±": "+-", "▶": ">", "“": '"', "”": '"', "’": "'"}


def start() -> None:
    """What every command does first, before its imports: they take seconds."""
    speak_plainly()
    end_on_interrupt()


def speak_plainly() -> None:
    """Writes what the terminal's encoding lacks ("…", "×") in plain letters, where Python would end in a traceback."""
    codecs.register_error(_ERRORS, _in_plain_letters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def end_on_interrupt() -> None:
    """From here on Ctrl-C ends the process at once, in one line, until another handler takes over.

    Also while a program compiles, for which Python's own handler would wait: a thread of its own listens.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return  # a background job of a shell ignores it

    def noted(*_: object) -> None:
        """Only there to be recognised: as long as it stands, nothing needs saving."""

    def listen() -> None:
        while number := heard.recv(1):
            if number[0] == signal.SIGINT and signal.getsignal(signal.SIGINT) is noted:
                os.write(2, b"\ninterrupted; the same command goes on from what has been saved\n")
                os._exit(ENDED)

    heard, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, noted)
    threading.Thread(target=listen, daemon=True).start()
    _open.extend((heard, told))


_open: list[socket.socket] = []  # as long as the process


def _in_plain_letters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(letter, "?") for letter in error.object[error.start:error.end]), error.end
