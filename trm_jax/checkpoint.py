"""The one owner of orbax: runs that are saved and resumed exactly, and single trees on disk."""

import json
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from trm_jax.errors import ConfigError
from trm_jax.state import TrainState

Tree = Any


def save_tree(path: Path, tree: Tree) -> None:
    """Writes a pytree of arrays to the new folder `path`, which appears only when complete."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), tree)


def load_tree(path: Path, like: Tree) -> Tree:
    """Reads a pytree written by `save_tree`; `like` gives structure, shapes, dtypes and shardings."""
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path.absolute(), like)
