"""The one owner of orbax: trees of arrays in folders, written at once or in the background."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from trm_jax.errors import ConfigError
from trm_jax.run.reasons import reason
from trm_jax.run.saved import Damaged

Tree = Any
SAVE_S = 300  # in which a save has to be written; so long others wait for a process whose part has failed
READING = (OSError, ValueError, KeyError, TypeError, RuntimeError)  # what the library raises at what it cannot read

# The library tells of every file it writes, and of what fails in pages; whoever calls this tells it in a line.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
logging.getLogger("asyncio").addFilter(lambda record: "orbax" not in record.getMessage())

# Each array is written whole, by one device: of slices of it, one for each device, every one would be compiled first.
ocp.type_handlers.register_type_handler(jax.Array, ocp.type_handlers.ArrayHandler(use_replica_parallel=False),
                                        override=True)


def _unraisable(problem: "sys.UnraisableHookArgs", shown: Callable[[Any], Any] = sys.unraisablehook) -> None:
    """Drops what each array's writer says, at its own end, of a save that has failed before: a page for every one."""
    if str(problem.exc_value) != "Event loop is closed":
        shown(problem)


sys.unraisablehook = _unraisable


class Background:
    """Writes a state and the position in the data to a folder while the run goes on.

    Args:
        seal: called by the first process when all files of a folder are there and its name is not.
    """

    def __init__(self, seal: Callable[[], None]):
        self._orbax = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(), async_options=ocp.options.AsyncOptions(
            post_finalization_callback=seal, timeout_secs=SAVE_S))

    def save(self, folder: Path, state: Tree, position: dict[str, Any]) -> None:
        """Begins to save. Raises whatever the file system and the library raise, here or in `check`."""
        self._orbax.save(folder, args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(position)))

    def check(self, *, wait: bool) -> None:
        """Raises what has gone wrong with the save under way; `wait`: until it is over."""
        if wait:
            self._orbax.wait_until_finished()
        self._orbax.check_for_errors()

    def restore(self, folder: Path, like: Tree) -> tuple[Tree, dict[str, Any]]:
        """State and position in the data, with the shardings of `like`.

        Raises:
            Damaged: they cannot be read.
            ConfigError: another version saved them.
        """
        try:
            _check_structure(folder, like)
            found = self._orbax.restore(folder, args=ocp.args.Composite(
                state=ocp.args.StandardRestore(like), data=ocp.args.JsonRestore()))
        except ConfigError:
            raise
        except READING as error:
            raise Damaged(reason(error)) from None
        return found["state"], found["data"]

    def close(self) -> None:
        """Waits until everything is written."""
        self._orbax.close()


def _check_structure(folder: Path, like: Tree) -> None:
    """Raises ConfigError where the checkpoint in `folder` holds other arrays than a state of this version."""
    there, here = _shapes(ocp.StandardCheckpointHandler().metadata(folder / "state").tree), _shapes(like)
    problems = [f"{name} {there.get(name, 'is missing')} there, {here.get(name, 'not known')} here"
                for name in sorted(here | there) if there.get(name) != here.get(name)]
    if problems:
        more = f" and {len(problems) - 2} more" if len(problems) > 2 else ""
        raise ConfigError(f"checkpoint {folder} was saved by another version of trm_jax "
                          f"({'; '.join(problems[:2])}{more}): continue with the version that the run was begun with, "
                          "or choose another --workdir")


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    """Dotted name → shape of every array."""
    return {".".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path): tuple(leaf.shape)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def save_fields(folder: Path, fields: dict[str, Tree]) -> None:
    """Writes some fields of a state, in the form of a checkpoint."""
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
        writer.save(folder, args=ocp.args.Composite(state=ocp.args.StandardSave(fields), data=ocp.args.JsonSave({})))


def load_fields(folder: Path, like: dict[str, Tree]) -> dict[str, Tree]:
    """Reads some fields of a state: name → shapes with shardings. Raises one of READING."""
    args = ocp.args.PyTreeRestore(like, restore_args=ocp.checkpoint_utils.construct_restore_args(like),
                                  partial_restore=True)
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
        return reader.restore(folder, args=ocp.args.Composite(state=args))["state"]


def save_tree(path: Path, tree: Tree) -> None:
    """Writes a pytree of arrays to the new folder `path`, which appears only when complete."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), tree)


def load_tree(path: Path, like: Tree) -> Tree:
    """Reads a pytree written by `save_tree`; `like` gives structure, shapes, dtypes and shardings.

    Raises:
        ConfigError: it is missing or damaged.
    """
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(path.absolute(), like)
    except READING as error:
        raise ConfigError(f"the arrays in {path} are missing or damaged: {reason(error)}") from None


def abstract(tree: Tree, shardings: Tree) -> Tree:
    """Shapes and dtypes of `tree` with `shardings`, to restore into without holding a second copy."""
    return jax.tree.map(lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
                        tree, shardings)
