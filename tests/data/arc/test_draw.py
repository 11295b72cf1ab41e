import re

import numpy as np
from PIL import Image

from trm_jax.data.arc import draw

GRID = np.array([[0, 1, 2], [3, 4, 5]], np.uint8)


def test_ansi_lines_have_two_columns_a_cell_and_end_plain():
    lines = draw.to_ansi(GRID)
    assert len(lines) == 2 and all(line.endswith("\x1b[0m") for line in lines)
    assert [re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines] == [" " * 6] * 2
    assert "48;2;0;116;217m" in lines[0] and "48;2;170;170;170m" in lines[1]


def test_panels_stand_side_by_side():
    panels = [("query", GRID), ("a long label", GRID.T), ("none", None)]
    text = draw.panels_side_by_side(panels, coloured=True)
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in text.split("\n")]
    assert len(lines) == 4
    assert lines[0] == "query    a long label   none" and lines[1].endswith(draw.NO_GRID)
    plain = draw.panels_side_by_side(panels, coloured=False).split("\n")
    assert plain[1:3] == ["0 1 2    0 3            (no grid)", "3 4 5    1 4"]


def test_cells_have_their_colours():
    image = draw.to_image(GRID, cell=5)
    assert image.shape == (11, 16, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image[3::5, 3::5], draw.PALETTE[GRID])


def test_a_gallery_holds_every_panel_and_can_be_saved(tmp_path):
    large = np.full((30, 30), 7, np.uint8)
    picture = draw.gallery([[("query", GRID), ("truth", large)], [("prediction", None)]], panel_px=100)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert {tuple(draw.PALETTE[colour].tolist()) for colour in (0, 1, 2, 3, 4, 5, 7)} <= colours
    draw.save_png(picture, tmp_path / "gallery.png")
    with Image.open(tmp_path / "gallery.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), picture)
