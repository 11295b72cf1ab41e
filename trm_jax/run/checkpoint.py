"""The one owner of orbax: runs that are saved and resumed exactly, and single trees on disk."""

import textwrap
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from trm_jax.dynamics.state import TrainState
from trm_jax.errors import ConfigError

Tree = Any
BEST_BY = ("eval/pass@2", "eval/accuracy")


class Checkpoints:
    """The checkpoints of a run, in `workdir`/checkpoints: the latest `keep`, and the best by held-out score.

    A checkpoint holds the whole TrainState and the position in the data. `best` is the one with the highest
    eval/pass@2, and among equals the highest eval/accuracy.
    """

    def __init__(self, workdir: Path, keep: int = 1):
        policy = AnyPreservationPolicy([LatestN(keep), BestN(get_metric_fn=_score, n=1,
                                                             keep_checkpoints_without_metrics=False)])
        options = ocp.CheckpointManagerOptions(preservation_policy=policy, best_fn=_score, create=True)
        self._manager = ocp.CheckpointManager(_folder(workdir), options=options)

    def save(self, state: TrainState, data_position: dict[str, Any], metrics: dict[str, float] | None) -> None:
        """Saves in the background; a checkpoint of this step that is already there stays."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self._manager.save(step, metrics=metrics, args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(data_position)))

    def restore(self, like: TrainState, step: int | None = None) -> tuple[TrainState, dict[str, Any]]:
        """State and data position of `step` (the latest by default), with the shardings of `like`.

        Args:
            like: arrays, or shapes with shardings, of the run's state.

        Raises:
            ConfigError: there is no such checkpoint.
        """
        step = _existing(self._manager, step)
        restored = self._manager.restore(step, args=ocp.args.Composite(
            state=ocp.args.StandardRestore(like), data=ocp.args.JsonRestore()))
        return restored["state"], restored["data"]

    @property
    def latest(self) -> int | None:
        """Step of the latest checkpoint, None without any."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Step of the best checkpoint by held-out score, None without any."""
        return self._manager.best_step()

    def path(self, step: int) -> Path:
        """Folder of the checkpoint of `step`."""
        return Path(self._manager.directory) / str(step)

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()


def _score(metrics: dict[str, float] | None) -> float:
    """pass@2, with the accuracy (0..1) too small a part to outweigh a task among thousands."""
    found = metrics or {}
    return sum(found.get(tag, 0.0) * weight for tag, weight in zip(BEST_BY, (1.0, 1e-6), strict=True))


def _folder(workdir: Path) -> Path:
    return (workdir / "checkpoints").absolute()


def saved_steps(workdir: Path) -> list[int]:
    """Steps of the complete checkpoints of the run in `workdir`, which need not exist."""
    folder = _folder(workdir)
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())


def _existing(manager: ocp.CheckpointManager, step: int | None) -> int:
    """`step`, or the latest for None. Raises ConfigError where there is no such checkpoint."""
    steps = sorted(manager.all_steps())
    if not steps:
        raise ConfigError(f"no checkpoint in {manager.directory}")
    if step is not None and step not in steps:
        raise ConfigError(f"no checkpoint of step {step} in {manager.directory}; "
                          f"there are: {', '.join(map(str, steps))}")
    return steps[-1] if step is None else step


def _named(manager: ocp.CheckpointManager, which: str) -> int | None:
    """The step that "latest" (None), "best" or a number means. Raises ConfigError where it means none."""
    if which == "best" and manager.best_step() is None:
        raise ConfigError(f"no checkpoint in {manager.directory} has been scored: none is the best")
    if which in ("latest", "best"):
        return manager.best_step() if which == "best" else None
    if not which.isdecimal():
        raise ConfigError(f"step {which!r} is neither a number nor one of latest, best")
    return int(which)


def restore_fields(workdir: Path, which: str, like: dict[str, Tree]) -> tuple[int, dict[str, Tree]]:
    """Some fields of the TrainState of a run, without reading or writing anything else of it.

    Args:
        which: a step in digits, "latest", or "best" by held-out score.
        like: name of the field → shapes with shardings.

    Returns:
        The checkpoint's step, and the fields.

    Raises:
        ConfigError: there is no such checkpoint.
    """
    folder = _folder(workdir)
    if not folder.is_dir():
        raise ConfigError(f"no checkpoint in {folder}")
    options = ocp.CheckpointManagerOptions(read_only=True, best_fn=_score)
    with ocp.CheckpointManager(folder, options=options) as manager:
        step = _existing(manager, _named(manager, which))
        args = ocp.args.PyTreeRestore(like, restore_args=ocp.checkpoint_utils.construct_restore_args(like),
                                      partial_restore=True)
        return step, manager.restore(step, args=ocp.args.Composite(state=args))["state"]


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
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = textwrap.shorten(str(error), 200, placeholder="…")
        raise ConfigError(f"the arrays in {path} are missing or damaged: {reason}") from None


def abstract(tree: Tree, shardings: Tree) -> Tree:
    """Shapes and dtypes of `tree` with `shardings`, to restore into without holding a second copy."""
    return jax.tree.map(lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
                        tree, shardings)
