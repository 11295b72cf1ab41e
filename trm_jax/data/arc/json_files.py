"""ARC's JSON, in the forms that people have it in.

    a folder      with challenges files of one set (the ARC Prize's download); or with training/ and evaluation/, at
                  any depth (a clone of ARC-AGI); or with task files at any depth (ConceptARC). Hidden files are none.
                  A file of RE-ARC is a list of pairs of one generator: any of them show, another is asked
    a file        of one task; of many, {id: task}, as PREFIX_challenges.json with PREFIX_solutions.json beside it, or
                  [task, …]; or .jsonl, a task in each line
    a prefix      of PREFIX_<subset>_challenges.json files, whose PREFIX_<subset>_solutions.json hold the answers

Where nothing says which tasks to train on, there is no split. Files are UTF-8, with or without a byte-order mark.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from trm_jax.data.arc import tasks
from trm_jax.data.arc.tasks import Found, Task, TaskError, TaskSet
from trm_jax.paths import foreign, looked_in

# What a subset of challenges is for. "concept" is ConceptARC, on which the PyTorch project trains too.
SUBSETS = {"training": "train", "concept": "train", "evaluation": "evaluation"}
FOLDERS = ("training", "evaluation")
SUFFIXES = (".json", ".jsonl")
CHALLENGES, SOLUTIONS = "_challenges.json", "_solutions.json"


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
      TaskError: it is missing, unreadable, malformed, or a file of another kind.
    """
    return _parse(_text(path), str(path))


def read(path: Path) -> TaskSet:
    """The tasks of a folder, a file or a prefix, as listed above.

    Raises:
      TaskError: there is none, none can be read, or it is not clear which are meant.
    """
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return tasks.no_split(_file(path))
    if _challenges(path).is_file():
        return tasks.no_split(_file(_challenges(path)))
    return _subsets(path)


def read_task(path: Path) -> Task:
    """The task of a file that holds one. Raises TaskError where it holds another number, or something else."""
    first, *others = [*_tasks(path)] or [TaskError(f"{path} holds no task")]
    if others:
        raise TaskError(f"{path} holds {1 + len(others)} tasks: give a file of one, or an id of ARC-AGI-1 or -2")
    if isinstance(first, TaskError):
        raise first
    return first


# ── Folders ──


def _folder(path: Path) -> TaskSet:
    folders = list(_visible(path))
    files = [folder / name for folder, _, names in folders for name in names if name.endswith(SUFFIXES)]
    prefixes = [file.with_name(file.name.removesuffix(CHALLENGES)) for file in files
                if file.name.endswith(CHALLENGES)]
    sets = [of for prefix in prefixes if (of := _set_of(prefix))] or prefixes
    halves = [folder for folder, inside, _ in folders if set(FOLDERS) & set(inside)]
    here = [found for found in sets if found.parent == path] + [found for found in halves if found == path]
    if not sets and not halves:
        return tasks.no_split(_files(files, path))
    root = _only(here or sets + halves, path)
    return read(root) if root in sets else tasks.two_parts(*(_all_below(root / name) for name in FOLDERS))


def _visible(path: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Every folder from `path` down, with its folders and files; without hidden ones and what macOS puts into zips."""
    for folder, inside, names in os.walk(path):
        inside[:] = sorted(name for name in inside if not name.startswith(".") and name != "__MACOSX")
        yield Path(folder), inside, sorted(name for name in names if not name.startswith("."))


def _only(found: Iterable[Path], path: Path) -> Path:
    first, *others = dict.fromkeys(found)
    if others:
        named = " or ".join(f"json:{each}" for each in (first, *others[:3]))
        raise TaskError(f"json:{path} holds {1 + len(others)} sets of tasks: write {named}")
    return first


def _all_below(folder: Path) -> Found:
    """The tasks of all files below a folder; none where there is no such folder."""
    if not folder.is_dir():
        return Found(())
    return _files([below / name for below, _, names in _visible(folder) for name in names
                   if name.endswith(SUFFIXES)], folder)


def _files(files: list[Path], folder: Path) -> Found:
    if not files:
        others = Counter(Path(name).suffix for _, _, names in _visible(folder) for name in names)
        (suffix, count), = others.most_common(1) or [("", 0)]
        hint = f", but {count} *{suffix} files" if suffix else ""
        packed = "; unpack them first" if suffix in (".gz", ".zip", ".xz", ".bz2", ".7z", ".tar") else ""
        raise TaskError(f"{folder}: holds no .json task file{hint}{packed}")
    return tasks.gather((task for file in files for task in _tasks(file)), str(folder))


# ── Challenges ──


def _challenges(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + CHALLENGES)


def _set_of(prefix: Path) -> Path | None:
    """`a/x_training` → a/x, the prefix of all its subsets; None where it names no subset that has a use."""
    match = re.fullmatch(rf"(.+)_({'|'.join(SUBSETS)})", prefix.name)
    return prefix.with_name(match[1]) if match else None


def _subsets(prefix: Path) -> TaskSet:
    """Tasks of PREFIX_<subset>_challenges.json."""
    parts: dict[str, list[Task | TaskError]] = {"train": [], "evaluation": []}
    for name, part in SUBSETS.items():
        file = prefix.with_name(f"{prefix.name}_{name}{CHALLENGES}")
        if file.is_file():
            parts[part] += _tasks(file)
    if not any(parts.values()):
        raise TaskError(f"json:{prefix}: no such folder or file{looked_in(prefix)}, and no {prefix.name}_<subset>"
                        f"{CHALLENGES} beside it")
    return tasks.two_parts(*(tasks.gather(found, f"json:{prefix}") for found in parts.values()))


def _with_answers(contents: dict[str, Any], solutions: Path) -> dict[str, Any]:
    answers = read_json(solutions)
    if not isinstance(answers, dict):
        raise TaskError(f"{solutions}: not of the form {{task id: …}}")
    for task_id, outputs in answers.items():
        content = contents.get(task_id)
        queries = content.get("test") if isinstance(content, dict) else None
        if not isinstance(queries, list) or not isinstance(outputs, list) or len(queries) != len(outputs):
            raise TaskError(f"{solutions}: task {task_id}: its answers do not match the test inputs")
        for query, output in zip(queries, outputs, strict=True):
            if isinstance(query, dict):  # `tasks.parse` reports anything else
                query["output"] = output
    return contents


# ── Files ──


def _file(path: Path) -> Found:
    return tasks.gather(_tasks(path), str(path))


def _tasks(path: Path) -> Iterator[Task | TaskError]:
    """What becomes of each task in a file. Raises TaskError where the file itself cannot be read."""
    for task_id, content in _contents(path):
        yield tasks.attempt(tasks.parse, task_id, content, str(path))


def _contents(path: Path) -> Iterator[tuple[str, Any]]:
    """Id and content of each task in a file."""
    if path.name.endswith(SOLUTIONS):
        raise TaskError(f"{path} holds answers only: give {path.name.removesuffix(SOLUTIONS)}{CHALLENGES} beside it")
    if path.suffix == ".jsonl":
        yield from _lines(path)
        return
    content = read_json(path)
    if isinstance(content, list) and any(isinstance(each, dict) and "train" in each for each in content):
        yield from (_named(each, path, number) for number, each in enumerate(content, start=1))
    elif isinstance(content, dict) and content and not {"train", "test"} & content.keys() \
            and (path.name.endswith(CHALLENGES) or any(isinstance(value, dict) for value in content.values())):
        solutions = path.with_name(path.name.removesuffix(CHALLENGES) + SOLUTIONS)
        yield from (_with_answers(content, solutions) if solutions.is_file() else content).items()
    elif path.name.endswith(CHALLENGES):
        raise TaskError(f"{path}: not of the form {{task id: …}}")
    else:
        yield path.stem, content


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """A task in each line."""
    for number, line in enumerate(_text(path).split("\n"), start=1):  # a text in JSON may hold U+2028
        if line.strip():
            yield _named(_parse(line, f"{path}: line {number}"), path, number)


def _named(content: Any, path: Path, number: int) -> tuple[str, Any]:
    """A task by its own id ("id" or "task_id"), or named after the file and its number there."""
    named = isinstance(content, dict) and (content.get("id") or content.get("task_id"))
    return named if isinstance(named, str) else f"{path.stem}-{number:05d}", content


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise TaskError(f"{path}: no such file") from None
    except OSError as error:
        raise TaskError(f"{path}: {error.strerror}") from None
    if what := foreign(raw[:64]):
        raise TaskError(f"{path} {what}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TaskError(f"{path}: malformed JSON: {error}") from None


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{place}: malformed JSON: {error}") from None
