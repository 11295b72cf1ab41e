"""Grids in the usual ARC colours: on a terminal, and as labelled pictures for TensorBoard and PNG files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trm_jax.data.arc.grids import Grid

# Black, blue, red, green, yellow, grey, magenta, orange, light blue, maroon.
PALETTE = np.array(
    [
        (0x00, 0x00, 0x00),
        (0x00, 0x74, 0xD9),
        (0xFF, 0x41, 0x36),
        (0x2E, 0xCC, 0x40),
        (0xFF, 0xDC, 0x00),
        (0xAA, 0xAA, 0xAA),
        (0xF0, 0x12, 0xBE),
        (0xFF, 0x85, 0x1B),
        (0x7F, 0xDB, 0xFF),
        (0x87, 0x0C, 0x25),
    ],
    np.uint8,
)
NO_GRID = "(no grid)"  # what stands in the place of a grid that was not predicted
Panel = tuple[str, Grid | None]  # a label and its grid

_LINE = (0x55, 0x55, 0x55)
_PAPER = (0xFF, 0xFF, 0xFF)
_INK = (0x22, 0x22, 0x22)
_LABEL_PX = 18  # height of the line that holds a label
_GAP_PX = 10
_LARGEST_CELL_PX = 24


def to_ansi(grid: Grid) -> list[str]:
    """One string per row of the grid: two terminal columns a cell, 24-bit background colours."""
    cells = np.array([f"\x1b[48;2;{r};{g};{b}m  " for r, g, b in PALETTE])[grid]
    return ["".join(row) + "\x1b[0m" for row in cells]


def to_digits(grid: Grid) -> list[str]:
    """One string per row of the grid: two columns a cell, the colour's number."""
    return ["".join(f"{colour} " for colour in row) for row in grid]


def panels_side_by_side(panels: Sequence[Panel], *, coloured: bool, gap: str = "   ") -> str:
    """Labelled grids side by side, as terminal text: in colours, or as digits where those would not be seen."""
    blocks = []  # (width in terminal columns, lines); colour codes take no room, so widths are counted here
    for label, grid in panels:
        body = [NO_GRID] if grid is None else to_ansi(grid) if coloured else to_digits(grid)
        body_width = len(NO_GRID) if grid is None else 2 * grid.shape[1]
        width = max(len(label), body_width)
        lines = [label.ljust(width), *(line + " " * (width - body_width) for line in body)]
        blocks.append((width, lines))
    height = max((len(lines) for _, lines in blocks), default=0)
    filled = [lines + [" " * width] * (height - len(lines)) for width, lines in blocks]
    return "\n".join(gap.join(line).rstrip() for line in zip(*filled, strict=True))


def to_image(grid: Grid, cell: int) -> np.ndarray:
    """A grid as (rows·cell+1, columns·cell+1, 3) uint8: cells of `cell` pixels, a line between them."""
    image = np.repeat(np.repeat(PALETTE[grid], cell, axis=0), cell, axis=1)
    image = np.pad(image, ((0, 1), (0, 1), (0, 0)))
    image[::cell] = image[:, ::cell] = _LINE
    return image


def gallery(rows: Sequence[Sequence[Panel]], panel_px: int = 160) -> np.ndarray:
    """Rows of labelled grids as one (height, width, 3) uint8 picture.

    Args:
      panel_px: side of the square that every grid is scaled into, and about the room for its label.
    """
    step = panel_px + _GAP_PX
    columns = max((len(row) for row in rows), default=0)
    height = len(rows) * (step + _LABEL_PX) + _GAP_PX
    picture = Image.new("RGB", (columns * step + _GAP_PX, height), _PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for i, row in enumerate(rows):
        for j, (label, grid) in enumerate(row):
            left, top = _GAP_PX + j * step, _GAP_PX + i * (step + _LABEL_PX)
            draw.text((left, top), label, fill=_INK, font=font)
            if grid is None:
                draw.text((left, top + _LABEL_PX), NO_GRID, fill=_INK, font=font)
            else:
                cell = min((panel_px - 1) // max(grid.shape), _LARGEST_CELL_PX)
                picture.paste(Image.fromarray(to_image(grid, cell)), (left, top + _LABEL_PX))
    return np.array(picture)


def save_png(picture: np.ndarray, path: str | Path) -> None:
    """Writes an (height, width, 3) uint8 picture."""
    Image.fromarray(picture).save(path, format="PNG")
