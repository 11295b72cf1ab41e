"""One folder, one process: who writes to a folder says so in it."""

import contextlib
import datetime
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from trm_jax.errors import ConfigError

LOCK_FILE = ".lock"
BEAT_S = 10.0  # between signs of life, the times of the file
STALE_S = 60.0  # without one after which whoever wrote it is gone
LISTEN_S = 25.0  # for a sign of life of another host


@contextlib.contextmanager
def locked(flag: str, folder: Path) -> Iterator[None]:
    """Holds the existing `folder`, which `flag` names, for this process.

    The kernel's lock tells on one host, and on file systems that share it; it is gone with its process. Where it says
    nothing, a holder on another host is known by its signs of life, so that one that was killed stops nobody.

    Raises:
        ConfigError: another process holds it.
    """
    with _opened(flag, folder) as file:
        shared = _flock(file)
        holder = _read(file)
        if shared is False or (holder and _lives(file, holder, kernel_knows=shared is True)):
            raise ConfigError(f"{flag}={folder} is in use by {_named(holder)}; wait for it, or choose another folder")
        _write(file, {"host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid()),
                      "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds")})
        over = threading.Event()
        beating = threading.Thread(target=_beat, args=(file, over), daemon=True)
        beating.start()
        try:
            yield
        finally:
            over.set()
            beating.join()
            with contextlib.suppress(OSError):
                _write(file, None)


def _opened(flag: str, folder: Path) -> IO[str]:
    try:
        return open(os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666), "r+", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{flag}={folder} cannot be written to ({LOCK_FILE}: {error.strerror}); choose another "
                          "folder") from None


def _flock(file: IO[str]) -> bool | None:
    """Whether the kernel gave the lock; None where this file system has none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None


def _lives(file: IO[str], holder: dict, kernel_knows: bool) -> bool:
    """Whether the process that wrote the lock still runs, as far as can be told."""
    if holder.get("host") == socket.gethostname():
        return not kernel_knows and holder.get("pid") != os.getpid() and holder.get("born") == _born(holder.get("pid"))
    last = os.fstat(file.fileno()).st_mtime
    if not time.time() - STALE_S < last < time.time() + STALE_S:
        return False
    until = time.monotonic() + LISTEN_S
    while time.monotonic() < until:
        time.sleep(min(1.0, LISTEN_S))
        if os.fstat(file.fileno()).st_mtime != last:
            return True
    return False


def _beat(file: IO[str], over: threading.Event) -> None:
    while not over.wait(BEAT_S):
        with contextlib.suppress(OSError):
            os.utime(file.fileno())


def _born(pid: object) -> str | None:
    """When a process of this host started, as its kernel counts; None where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _read(file: IO[str]) -> dict:
    """What the lock says; {} where it is free or cannot be read."""
    try:
        file.seek(0)
        found = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(file: IO[str], content: dict | None) -> None:
    file.seek(0)
    file.truncate()
    if content:
        file.write(json.dumps(content) + "\n")
    file.flush()


def _named(holder: dict) -> str:
    if not holder:
        return "another process"
    return f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
