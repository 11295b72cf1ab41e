"""Writing to disk so that nothing is ever half there."""

import os
import tempfile
from pathlib import Path

from trm_jax.errors import ConfigError

ROOM = 2**16  # bytes that what a command writes first takes at most: on a full disk it does not begin


def write(path: Path, text: str) -> None:
    """Writes a file that appears, or replaces the one before, only when complete."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def make_folder(flag: str, path: Path) -> None:
    """Makes the folder `path` that `flag` names, unless it is there.

    Raises:
        ConfigError: it cannot be made, or nothing can be written to it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path, buffering=0) as file:
            file.write(bytes(ROOM))
    except OSError as error:
        raise ConfigError(f"{flag}={path} cannot be written to ({error.strerror}); choose another folder") from None
