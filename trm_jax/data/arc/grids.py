"""Grids of colours and their tokens on a square canvas.

A *grid* is a (rows, columns) uint8 array of colours 0..9, at most 30×30. A *canvas* has `side`×`side` cells
and is flattened row by row to S = side² tokens: 0 PAD, 1 EOS, 2..11 the colours. EOS is written along the row
just below and the column just right of the grid (not in the corner between) where they are on the canvas.
"""

import hashlib
from typing import Any

import numpy as np

PAD = 0
EOS = 1
FIRST_COLOUR = 2
COLOURS = 10
VOCAB_SIZE = FIRST_COLOUR + COLOURS  # PAD, EOS and ten colours
IGNORE = -100  # label of a cell that the loss leaves out
MAX_SIDE = 30  # ARC's own limit

Grid = np.ndarray  # (rows, columns) uint8, colours 0..9
Shape = tuple[int, int]  # (rows, columns) of a grid, or (row, column) of its top-left cell on a canvas

# Indexed by token. PAD carries no label: what stands outside a grid and its EOS border is not to be learnt.
_LABEL_OF = np.arange(VOCAB_SIZE, dtype=np.int32)
_LABEL_OF[PAD] = IGNORE


def as_grid(cells: Any) -> Grid:
    """Checks nested lists or an array and returns them as a grid.

    Raises:
      ValueError: not rectangular, empty, larger than 30×30, or a cell that is not a colour. The message is a
        predicate ("is ragged: …"), to be put behind the name of the grid.
    """
    if not isinstance(cells, np.ndarray):
        rows = cells if isinstance(cells, list) else []
        if not rows or not all(isinstance(row, list) and row for row in rows):
            raise ValueError("is not a non-empty list of non-empty rows")
        widths = {len(row) for row in rows}
        if len(widths) > 1:
            raise ValueError(f"is ragged: its rows have {min(widths)} to {max(widths)} cells")
        try:
            cells = np.array(rows)
        except ValueError:  # numpy's word for a cell that is itself a list
            raise ValueError("holds something other than numbers") from None
    if cells.ndim != 2 or not cells.size:
        raise ValueError(f"has shape {cells.shape}, not (rows, columns)")
    if cells.dtype.kind not in "iu":
        raise ValueError("holds something other than whole numbers")
    if max(cells.shape) > MAX_SIDE:
        raise ValueError(f"is {cells.shape[0]}x{cells.shape[1]}, larger than {MAX_SIDE}x{MAX_SIDE}")
    wrong = cells[(cells < 0) | (cells >= COLOURS)]
    if wrong.size:
        raise ValueError(f"holds colour {wrong[0]}, outside 0..{COLOURS - 1}")
    return cells.astype(np.uint8)


def digest(grid: Grid) -> str:
    """sha256 (hex) of the two extents and the cells, row by row: equal exactly for equal grids."""
    return hashlib.sha256(bytes(grid.shape) + grid.tobytes()).hexdigest()


def write(grid: Grid, canvas: np.ndarray, offset: Shape = (0, 0)) -> None:
    """Writes a grid and its EOS border onto a (side, side) canvas of PAD, top-left cell at `offset`.

    The caller sees to it that the grid fits; `tokenise` checks.
    """
    (top, left), (rows, columns), side = offset, grid.shape, len(canvas)
    bottom, right = top + rows, left + columns
    np.add(grid, FIRST_COLOUR, out=canvas[top:bottom, left:right])
    if bottom < side:
        canvas[bottom, left:right] = EOS
    if right < side:
        canvas[top:bottom, right] = EOS


def tokenise(grid: Grid, side: int, offset: Shape = (0, 0)) -> np.ndarray:
    """One grid as (S,) uint8 tokens.

    Raises:
      ValueError: the grid does not fit on the canvas at this offset.
    """
    (top, left), (rows, columns) = offset, grid.shape
    if min(top, left) < 0 or top + rows > side or left + columns > side:
        raise ValueError(f"a {rows}x{columns} grid at offset {offset} leaves the {side}x{side} canvas")
    canvas = np.zeros((side, side), np.uint8)
    write(grid, canvas, offset)
    return canvas.reshape(-1)


def labels(tokens: np.ndarray) -> np.ndarray:
    """Target tokens of any shape, as int32 labels: PAD becomes IGNORE."""
    return _LABEL_OF[tokens]


def crop(tokens: np.ndarray, side: int) -> Grid | None:
    """Reads a predicted canvas back: the largest-area rectangle of colours only at the top-left corner.

    Of two equally large ones that with fewer rows. Called for every prediction, hence no Python loop.

    Args:
      tokens: (S,) integers; what is no token counts as no colour.
    Returns:
      The grid, or None where the very first cell holds no colour: the model predicted no grid.
    """
    canvas = tokens.reshape(side, side)
    blocked = np.ones((side, side + 1), bool)  # the last column stops a row that is coloured throughout
    np.less(canvas, FIRST_COLOUR, out=blocked[:, :side])
    blocked[:, :side] |= canvas >= VOCAB_SIZE
    widths = np.minimum.accumulate(blocked.argmax(axis=1))  # (side,) width common to the first r+1 rows
    areas = widths * np.arange(1, side + 1)
    last = int(areas.argmax())
    if not areas[last]:
        return None
    return (canvas[: last + 1, : widths[last]] - FIRST_COLOUR).astype(np.uint8)


def find(tokens: np.ndarray, side: int) -> Grid:
    """Recovers a grid that `tokenise` wrote at any offset.

    Raises:
      ValueError: the colours on the canvas are none, or no filled rectangle.
    """
    canvas = tokens.reshape(side, side)
    coloured = canvas >= FIRST_COLOUR
    rows, columns = np.flatnonzero(coloured.any(axis=1)), np.flatnonzero(coloured.any(axis=0))
    if not rows.size:
        raise ValueError("is a canvas without any colour")
    box = canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if box.min() < FIRST_COLOUR or box.max() >= VOCAB_SIZE:
        raise ValueError("is a canvas whose colours fill no rectangle")
    return (box - FIRST_COLOUR).astype(np.uint8)
