"""Destinations that appear only when complete."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tools.torch_checkpoint import CheckpointError
from trm_jax.errors import ConfigError
from trm_jax.run.reasons import reason


class DestinationError(ValueError):
    """Something stands where a result is to go, or it cannot be written; one line that names the place."""


@contextlib.contextmanager
def saving(path: Path) -> Iterator[None]:
    """Raises DestinationError for whatever file systems and libraries raise, each its own, where a disk is full."""
    try:
        yield
    except (CheckpointError, ConfigError):  # of what is to be saved
        raise
    except Exception as error:
        raise DestinationError(f"{path} cannot be written to, is there room? ({reason(error)})") from None


@contextlib.contextmanager
def new_folder(path: Path, *, force: bool, marker: str) -> Iterator[Path]:
    """A folder to fill, which takes the place of `path` when the block ends and vanishes when the block raises.

    Args:
        force: replace what `path` holds, provided that it holds a file `marker`: a folder of something else is
            nobody's to delete.

    Raises:
        DestinationError: `path` exists and is not to be replaced.
    """
    if path.exists() and not force:
        raise DestinationError(f"{path} exists; choose another destination, or replace it with --force")
    if path.exists() and not (path / marker).is_file():
        raise DestinationError(f"{path} exists and holds no {marker}: --force replaces converted checkpoints only")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    replaced = path.with_name(f".{path.name}.replaced-{os.getpid()}")
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            path.rename(replaced)
        partial.rename(path)
    finally:
        for leftover in (partial, replaced):
            shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def new_file(path: Path, *, force: bool) -> Iterator[Path]:
    """A file to write, which takes the place of `path` when the block ends and vanishes when the block raises.

    Raises:
        DestinationError: `path` is a folder, or exists without `force`.
    """
    if path.is_dir():
        raise DestinationError(f"{path} is a folder; the state dict is written to a file")
    if path.exists() and not force:
        raise DestinationError(f"{path} exists; choose another destination, or replace it with --force")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
