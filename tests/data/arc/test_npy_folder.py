import json
import shutil

import numpy as np
import pytest

from tests.data.arc import fakes
from trm_jax.data.arc import augment, grids, sources
from trm_jax.data.arc.augment import IDENTITY
from trm_jax.data.arc.tasks import TaskError

SIDE = 12


def build(folder, train, test, rng, original=True):
    """A dataset folder as the PyTorch project writes it: three variants of each task, shifted in train/."""
    names = ["<blank>"]
    for split, tasks in (("train", train), ("test", test)):
        arrays = {"inputs": [], "labels": [], "puzzle_identifiers": [], "num_demos": []}
        puzzle_indices, group_indices = [0], [0]
        for task in tasks:
            variants = augment.distinct_variants(rng, 4)[0 if original else 1 :][:3]
            for variant in reversed(variants):  # the original need not come first
                for pair in task.pairs:
                    shown = [variant.apply(grid) for grid in (pair.input, pair.output)]
                    shapes = [grid.shape for grid in shown]
                    offset = augment.random_offset(rng, shapes, SIDE) if split == "train" else (0, 0)
                    for field, grid in zip(("inputs", "labels"), shown, strict=True):
                        arrays[field].append(grids.tokenise(grid, SIDE, offset))
                arrays["puzzle_identifiers"].append(len(names))
                arrays["num_demos"].append(len(task.demos))
                names.append(task.id if variant == IDENTITY else variant.name(task.id))
                puzzle_indices.append(len(arrays["inputs"]))
            group_indices.append(len(arrays["num_demos"]))
        (folder / split).mkdir(parents=True)
        arrays |= {"puzzle_indices": puzzle_indices, "group_indices": group_indices}
        for field, values in arrays.items():
            np.save(folder / split / f"all__{field}.npy", np.array(values))
        metadata = {"seq_len": SIDE**2, "sets": ["all"], "pad_id": 0}
        (folder / split / "dataset.json").write_text(json.dumps(metadata))
    (folder / "identifiers.json").write_text(json.dumps(names))
    (folder / "test_puzzles.json").write_text(json.dumps({task.id: fakes.content(task) for task in test}))


@pytest.fixture
def tasks():
    rng = np.random.default_rng(0)
    return [fakes.task(rng, name, demos=3, queries=1 + i, largest=SIDE) for i, name in enumerate("abc")]


@pytest.mark.parametrize("original", [True, False])
def test_the_originals_come_back(tmp_path, tasks, original):
    build(tmp_path, tasks[:2], tasks[2:], np.random.default_rng(1), original)
    found = sources.load(f"npy:{tmp_path}")
    for expected, task in zip(tasks, (*found.train, *found.evaluation), strict=True):
        assert (task.id, task.digest, len(task.demos)) == (expected.id, expected.digest, 3)
        for pair, same in zip(task.pairs, expected.pairs, strict=True):
            np.testing.assert_array_equal(pair.input, same.input)
            np.testing.assert_array_equal(pair.output, same.output)


def test_one_split_may_be_missing(tmp_path, tasks):
    build(tmp_path, tasks[:2], tasks[2:], np.random.default_rng(1))
    shutil.rmtree(tmp_path / "train")
    found = sources.load(f"npy:{tmp_path}")
    assert found.train == () and len(found.evaluation) == 1


def change(file, value):
    def damage(folder):
        array = np.load(folder / "train" / file)
        np.save(folder / "train" / file, value(array))

    return damage


def archive(folder):
    with (folder / "train/all__inputs.npy").open("wb") as file:
        np.savez(file, inputs=np.zeros((1, SIDE**2), np.int64))


DAMAGES = {
    "all__inputs.npy: not a numpy array": archive,
    "the all__.* arrays do not match": change("all__group_indices.npy", lambda array: array[:0]),
    "embedding-based TRM": lambda folder: (folder / "train/all__num_demos.npy").unlink(),
    "all__labels.npy: No such file": lambda folder: (folder / "train/all__labels.npy").unlink(),
    "all__labels.npy: not a numpy": lambda folder: (folder / "train/all__labels.npy").write_bytes(b"junk"),
    "identifiers.json: no such file": lambda folder: (folder / "identifiers.json").unlink(),
    "dataset.json: malformed JSON": lambda folder: (folder / "train/dataset.json").write_text("{"),
    "identifiers.json: not a list of names": lambda folder: (folder / "identifiers.json").write_text('{"a": 1}'),
    "identifiers.json: not a list of n": lambda folder: (folder / "identifiers.json").write_text('["a", null]'),
    "num_demos.npy: holds int64 of 0 dimensions": change("all__num_demos.npy", lambda array: np.array(3)),
    "inputs.npy: holds int64 of 0 dimensions": change("all__inputs.npy", lambda array: np.array(3)),
    "inputs.npy: holds float64 of 2 dimensions": change("all__inputs.npy", lambda array: array.astype(float)),
    "indices.npy: holds <U21 of 1 dimensions": change("all__puzzle_indices.npy", lambda array: array.astype(str)),
    "group_indices.npy: holds float64": change("all__group_indices.npy", lambda array: array.astype(float)),
    "numpy array": change("all__labels.npy", lambda array: np.array({"a": 1})),
    "needs seq_len": lambda folder: (folder / "train/dataset.json").write_text('{"seq_len": 7, "sets": []}'),
    "arrays do not match": change("all__inputs.npy", lambda array: array[:-1]),
    "task a: 4 of 4 examples": change("all__num_demos.npy", lambda array: array + 1),
    "outside identifiers.json": change("all__puzzle_identifiers.npy", lambda array: array + 100),
    "task a: a grid is a canvas": change("all__inputs.npy", np.zeros_like),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_folder_is_one_clear_line(tmp_path, tasks, message):
    build(tmp_path, tasks[:2], tasks[2:], np.random.default_rng(1))
    DAMAGES[message](tmp_path)
    with pytest.raises(TaskError, match=message) as error:
        sources.load(f"npy:{tmp_path}")
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_folder(tmp_path):
    with pytest.raises(TaskError, match="no such dataset folder"):
        sources.load(f"npy:{tmp_path / 'nowhere'}")
