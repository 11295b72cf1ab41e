"""Writing to disk so that nothing is ever half there."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trm_jax.errors import ConfigError

ROOM = 2**16  # bytes that what a command writes first takes at most: on a full disk it does not begin


def write(path: Path, text: str) -> None:
    """Writes a file that appears, or replaces the one before, only when complete."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, path)


@contextlib.contextmanager
def writing(flag: str, path: Path) -> Iterator[None]:
    """Says of which `path`, that `flag` names, it is where something cannot be written: ConfigError for OSError."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{flag}={path} cannot be written to ({error.strerror}); choose another folder") from None


def make_folder(flag: str, path: Path) -> None:
    """Makes the folder `path` that `flag` names, unless it is there.

    Raises:
        ConfigError: it cannot be made, or nothing can be written to it.
    """
    with writing(flag, path):
        path.mkdir(parents=True, exist_ok=True)
        _try(path)


def check_folder(flag: str, path: Path) -> None:
    """Raises ConfigError where `make_folder` will, as far as the nearest folder that is there can tell."""
    with writing(flag, path):
        _try(next(there for there in (path, *path.absolute().parents) if there.exists()))


def _try(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        file.write(bytes(ROOM))
