"""Dataset folders that the PyTorch project builds for encoder-based models.

    identifiers.json                     names of all variants; all__puzzle_identifiers points into it
    train/, test/  dataset.json          seq_len = side², sets = ["all"]
                   all__inputs.npy       (examples, S) tokens; those of train/ may be shifted on the canvas
                   all__labels.npy       (examples, S)
                   all__puzzle_indices   (puzzles + 1,) first example of each puzzle, and the end
                   all__group_indices    (groups + 1,) first puzzle of each group, and the end
                   all__num_demos        (puzzles,) demonstrations, which stand first; the rest are queries
    test_puzzles.json                    the tasks of test/ once more, as JSON: not read

A *puzzle* there is a variant here, a *group* all variants of one task. Only the original is read: variants
are made while training. The folders of the embedding-based TRM have no num_demos; they spread a task's
demonstrations and queries over train/ and test/, so no task can be rebuilt from them: an error that says so.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trm_jax.data.arc import augment, grids, tasks
from trm_jax.data.arc.augment import Variant
from trm_jax.data.arc.json_files import read_json
from trm_jax.data.arc.tasks import Pair, Task, TaskError, TaskSet
from trm_jax.paths import looked_in

SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class _Set:
    """The arrays of one set, as listed above; inputs and labels stay on disk."""

    inputs: np.ndarray
    labels: np.ndarray
    puzzle_identifiers: np.ndarray
    puzzle_indices: np.ndarray
    group_indices: np.ndarray
    num_demos: np.ndarray


def read(folder: Path) -> TaskSet:
    """The original tasks of train/, to train on, and of test/, to evaluate on; none of one that is missing.

    Raises:
      TaskError: no such folder, a missing or malformed file, a plain TRM folder, or a malformed task: a folder
        that a program has written holds no odd ones.
    """
    if not any((folder / split).is_dir() for split in SPLITS):
        raise TaskError(f"npy:{folder}: no such dataset folder{looked_in(folder)} (train/ and test/ are missing)")
    return tasks.two_parts(*(tasks.gather(_split(folder, split), f"npy:{folder}") for split in SPLITS))


def _split(folder: Path, split: str) -> Iterator[Task]:
    if not (folder / split).is_dir():
        return
    names = read_names(folder / "identifiers.json")
    side, set_names = read_metadata(folder / split / "dataset.json")
    for set_name in set_names:
        yield from _tasks(_arrays(folder / split, set_name, side), names, side, folder / split)


def read_names(file: Path) -> list[str]:
    """The content of an identifiers.json, by row. Raises TaskError where it is missing or something else."""
    names = read_json(file)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TaskError(f"{file}: not a list of names")
    return names


def read_metadata(file: Path) -> tuple[int, list[str]]:
    """Side of the canvas and names of the sets, from a dataset.json. Raises TaskError where they are not there."""
    match read_json(file):
        case {"seq_len": int(tokens), "sets": list(names)} if 0 < tokens == math.isqrt(tokens) ** 2:
            return math.isqrt(tokens), names
    raise TaskError(f"{file}: needs seq_len, the square of the canvas side, and a list of sets")


def _arrays(folder: Path, set_name: str, side: int) -> _Set:
    found = {}
    for field in dataclasses.fields(_Set):
        file = folder / f"{set_name}__{field.name}.npy"
        if field.name == "num_demos" and not file.exists():
            raise TaskError(
                f"{file}: no such file: a folder of the embedding-based TRM does not tell demonstrations from"
                " queries; build one with the project's build_arc_dataset_encoder"
            )
        found[field.name] = _array(file, dimensions=2 if field.name in ("inputs", "labels") else 1)
    arrays = _Set(**found)
    puzzles, examples = len(arrays.puzzle_identifiers), len(arrays.inputs)
    shapes_right = (
        arrays.inputs.shape == arrays.labels.shape == (examples, side * side)
        and arrays.num_demos.shape == (puzzles,)
        and _bounds(arrays.puzzle_indices, puzzles, examples)
        and _bounds(arrays.group_indices, len(arrays.group_indices) - 1, puzzles)
    )
    if not shapes_right:
        raise TaskError(f"{folder}: the lengths of the {set_name}__*.npy arrays do not match")
    return arrays


def _array(file: Path, dimensions: int) -> np.ndarray:
    try:
        array = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise TaskError(f"{file}: {getattr(error, 'strerror', None) or 'not a numpy array'}") from None
    if array.ndim != dimensions or not np.issubdtype(array.dtype, np.integer):
        raise TaskError(f"{file}: holds {array.dtype} of {array.ndim} dimensions, not integers of {dimensions}")
    return array


def _bounds(indices: np.ndarray, count: int, end: int) -> bool:
    """Whether `indices` cut `end` items into `count` runs of at least one."""
    if not len(indices) or indices.shape != (count + 1,) or indices[0] != 0 or indices[-1] != end:
        return False
    return bool(np.all(np.diff(indices) > 0))


def _tasks(arrays: _Set, names: list[str], side: int, folder: Path) -> Iterator[Task]:
    for first, end in zip(arrays.group_indices[:-1], arrays.group_indices[1:], strict=True):
        identifiers = arrays.puzzle_identifiers[first:end]
        if identifiers.min() < 0 or identifiers.max() >= len(names):
            raise TaskError(f"{folder}: puzzle identifier {identifiers.max()} is outside identifiers.json")
        group = [names[identifier] for identifier in identifiers]
        # Where the group lacks its original, any variant gives it back.
        chosen = next((i for i, name in enumerate(group) if augment.SEPARATOR not in name), 0)
        yield _task(arrays, first + chosen, group[chosen], side, folder)


def _task(arrays: _Set, puzzle: int, name: str, side: int, folder: Path) -> Task:
    try:
        task_id, variant = augment.parse(name)
    except ValueError as error:
        raise TaskError(f"{folder}: {error}") from None
    examples = range(arrays.puzzle_indices[puzzle], arrays.puzzle_indices[puzzle + 1])
    demos = int(arrays.num_demos[puzzle])
    if not 0 < demos < len(examples):
        raise TaskError(f"{folder}: task {task_id}: {demos} of {len(examples)} examples are demonstrations")
    try:
        pairs = [_pair(arrays, example, variant, side) for example in examples]
    except ValueError as error:
        raise TaskError(f"{folder}: task {task_id}: a grid {error}") from None
    return Task(task_id, tuple(pairs[:demos]), tuple(pairs[demos:]))


def _pair(arrays: _Set, example: int, variant: Variant, side: int) -> Pair:
    """Raises ValueError, a predicate, where a canvas holds no grid or one that is not ARC's."""
    canvases = (arrays.inputs[example], arrays.labels[example])
    return Pair(*(variant.invert(grids.as_grid(grids.find(np.asarray(canvas), side))) for canvas in canvases))
