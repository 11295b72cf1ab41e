"""The golden data cases, read from their own files."""

import json
from typing import Any

from tests import parity
from tests.parity import Case
from trm_jax.data.arc import tasks
from trm_jax.data.arc.tasks import Task

CASES = parity.cases("F")


def read(case: Case, name: str) -> Any:
    return json.loads((case.folder / name).read_text())


def puzzles(case: Case) -> dict[str, Task]:
    """The case's tasks by id."""
    contents = read(case, "puzzles.json")
    return {task_id: tasks.parse(task_id, content, case.name) for task_id, content in contents.items()}


def canvas_side(tokens: int) -> int:
    side = round(tokens**0.5)
    assert side * side == tokens
    return side
