import numpy as np
import pytest

from tests.data.arc import fakes, golden
from trm_jax.data.arc import grids


def test_eos_stands_below_and_right_of_the_grid_but_not_in_the_corner():
    tokens = grids.tokenise(np.array([[0, 9]], np.uint8), 4, offset=(1, 1))
    assert tokens.tolist() == [0, 0, 0, 0, 0, 2, 11, 1, 0, 1, 1, 0, 0, 0, 0, 0]


def test_a_grid_of_the_size_of_the_canvas_has_no_eos():
    tokens = grids.tokenise(np.full((3, 3), 5, np.uint8), 3)
    assert tokens.dtype == np.uint8 and (tokens == 7).all()


@pytest.mark.parametrize("offset", [(2, 0), (0, 3), (-1, 0)])
def test_a_grid_that_leaves_the_canvas_is_refused(offset):
    with pytest.raises(ValueError, match="leaves the 4x4 canvas"):
        grids.tokenise(np.zeros((3, 2), np.uint8), 4, offset)


def test_labels_ignore_padding_only():
    labels = grids.labels(np.array([0, 1, 2, 11], np.uint8))
    assert labels.dtype == np.int32 and labels.tolist() == [-100, 1, 2, 11]


def test_crop_and_find_undo_tokenise():
    rng = np.random.default_rng(0)
    for _ in range(200):
        grid = fakes.grid(rng)
        np.testing.assert_array_equal(grids.crop(grids.tokenise(grid, 30), 30), grid)
        offset = tuple(rng.integers(0, 31 - np.array(grid.shape)))
        np.testing.assert_array_equal(grids.find(grids.tokenise(grid, 30, offset), 30), grid)


def test_crop_agrees_with_trying_every_rectangle():
    rng, side = np.random.default_rng(1), 5
    for _ in range(300):
        canvas = rng.choice(14, size=(side, side), p=[0.05, 0.05, *[0.088] * 10, 0.01, 0.01])
        sizes = [
            (rows * columns, -rows, columns)
            for rows in range(1, side + 1)
            for columns in range(1, side + 1)
            if ((canvas[:rows, :columns] >= 2) & (canvas[:rows, :columns] <= 11)).all()
        ]
        crop = grids.crop(canvas.reshape(-1), side)
        if not sizes:
            assert crop is None
        else:
            _, rows, columns = max(sizes)
            np.testing.assert_array_equal(crop, canvas[:-rows, :columns] - 2)


@pytest.mark.parametrize("canvas", [[[0, 0], [0, 0]], [[2, 0], [0, 2]], [[2, 12], [2, 2]]])
def test_find_refuses_what_is_no_filled_rectangle(canvas):
    with pytest.raises(ValueError, match="is a canvas"):
        grids.find(np.array(canvas), 2)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([[0, 1], [2]], "ragged"),
        ([[10]], "colour 10"),
        ([[-1]], "colour -1"),
        ([[0] * 31], "1x31, larger than 30x30"),
        ([], "non-empty"),
        ([[]], "non-empty"),
        ("01", "non-empty"),
        ([0, 1], "non-empty"),
        ([["0"]], "whole numbers"),
        ([[1.5]], "whole numbers"),
        ([[True]], "whole numbers"),
        ([[None]], "whole numbers"),
        ([[[1], 2]], "other than numbers"),
        ([[[1, 2]]], "shape"),
    ],
)
def test_what_is_no_grid_is_refused(cells, message):
    with pytest.raises(ValueError, match=message):
        grids.as_grid(cells)


def test_as_grid_keeps_the_cells():
    grid = grids.as_grid([[0, 9], [3, 4], [1, 1]])
    assert grid.dtype == np.uint8 and grid.tolist() == [[0, 9], [3, 4], [1, 1]]
    np.testing.assert_array_equal(grids.as_grid(grid.astype(np.int64)), grid)


def test_the_digest_tells_shapes_apart():
    flat = np.zeros(6, np.uint8)
    assert len({grids.digest(flat.reshape(shape)) for shape in ((1, 6), (2, 3), (3, 2))}) == 3


@pytest.mark.parity
@pytest.mark.parametrize("case", golden.CASES, ids=str)
@pytest.mark.parametrize("kind", ["encode", "translate"])
def test_golden_tokens(case, kind):
    arrays, tasks = case.arrays, golden.puzzles(case)
    offsets = arrays.get(f"{kind}/offset", np.zeros((len(arrays[f"{kind}/index"]), 2), int))
    for row, (puzzle, split, example) in enumerate(arrays[f"{kind}/index"]):
        task = tasks[case.info["puzzle_ids"][puzzle]]
        pair = (task.demos, task.queries)[split][example]
        for grid, name in ((pair.input, "inputs"), (pair.output, "labels")):
            expected = arrays[f"{kind}/{name}"][row]
            side = golden.canvas_side(len(expected))
            np.testing.assert_array_equal(grids.tokenise(grid, side, tuple(offsets[row])), expected)
            np.testing.assert_array_equal(grids.find(expected, side), grid)


@pytest.mark.parity
@pytest.mark.parametrize("case", golden.CASES, ids=str)
def test_golden_crop(case):
    arrays = (case.arrays[f"crop/{name}"] for name in ("tokens", "shape", "grid"))
    for canvas, shape, expected in zip(*arrays, strict=True):
        crop = grids.crop(canvas, golden.canvas_side(len(canvas)))
        if not shape.all():
            assert crop is None
        else:
            np.testing.assert_array_equal(crop, expected[: shape[0], : shape[1]])


@pytest.mark.parity
@pytest.mark.parametrize("case", golden.CASES, ids=str)
def test_golden_digest(case):
    for call in golden.read(case, "augment.json")["cases"]:
        assert grids.digest(grids.as_grid(call["grid"])) == call["grid_hash"]
