import re
from collections import Counter

import numpy as np
import pytest

from tests.data.arc import fakes, golden
from trm_jax.data.arc import augment, grids
from trm_jax.data.arc.augment import IDENTITY, Variant


def test_invert_undoes_apply_and_the_name_says_it_all():
    rng = np.random.default_rng(0)
    for _ in range(300):
        variant, grid = augment.random_variant(rng), fakes.grid(rng)
        shown = variant.apply(grid)
        np.testing.assert_array_equal(variant.invert(shown), grid)
        np.testing.assert_array_equal(variant.apply(variant.invert(grid)), grid)
        assert ((shown == 0).sum() == (grid == 0).sum()) and shown.dtype == np.uint8
        assert augment.parse(variant.name("007bbfb7")) == ("007bbfb7", variant)


def test_the_eight_transforms_are_what_they_are_called():
    grid = np.arange(6, dtype=np.uint8).reshape(2, 3)
    expected = [
        *(np.rot90(grid, k) for k in range(4)),
        np.fliplr(grid),
        np.flipud(grid),
        grid.T,
        np.fliplr(np.rot90(grid)),
    ]
    for transform, shown in enumerate(expected):
        np.testing.assert_array_equal(augment.dihedral(grid, transform), shown)


def test_a_bare_id_is_the_identity():
    assert augment.parse("007bbfb7") == ("007bbfb7", IDENTITY)
    grid = fakes.grid(np.random.default_rng(0))
    np.testing.assert_array_equal(IDENTITY.apply(grid), grid)


@pytest.mark.parametrize("suffix", ["", "t1", "t8|||0123456789", "t1|||01234", "t1|||1023456789"])
def test_a_malformed_name_is_refused(suffix):
    with pytest.raises(ValueError, match=r"variant name|transform 8|permutation"):
        augment.parse(f"007bbfb7|||{suffix}")


def test_a_map_that_is_no_permutation_is_refused():
    with pytest.raises(ValueError, match="permutation"):
        Variant(0, (0, 1, 1, 3, 4, 5, 6, 7, 8, 9))


def test_random_variants_cover_transforms_and_colours_evenly():
    rng = np.random.default_rng(0)
    found = [augment.random_variant(rng) for _ in range(4000)]
    transforms = Counter(variant.transform for variant in found)
    assert sorted(transforms) == list(range(8)) and min(transforms.values()) > 400
    images_of_1 = Counter(variant.colours[1] for variant in found)
    assert sorted(images_of_1) == list(range(1, 10)) and min(images_of_1.values()) > 350


def test_variants_that_leave_the_colours_are_the_eight_orientations():
    found = augment.fixed_variants("007bbfb7", 8, 0, colours=False)
    assert {variant.transform for variant in found} == set(range(8)) and found[0] == IDENTITY
    assert {variant.colours for variant in found} == {IDENTITY.colours}
    rng = np.random.default_rng(0)
    assert {augment.random_variant(rng, colours=False) for _ in range(100)} == set(found)
    with pytest.raises(ValueError, match="9 variants"):
        augment.fixed_variants("007bbfb7", 9, 0, colours=False)


def test_distinct_variants_differ_and_a_longer_list_starts_with_the_shorter():
    few, many = (augment.distinct_variants(np.random.default_rng(5), count) for count in (7, 300))
    assert few[0] == IDENTITY and len(set(many)) == 300 and many[:7] == few
    with pytest.raises(ValueError, match="0 variants"):
        augment.distinct_variants(np.random.default_rng(0), 0)


def test_offsets_are_uniform_over_what_keeps_both_grids_on_the_canvas():
    rng = np.random.default_rng(0)
    found = Counter(augment.random_offset(rng, [(3, 1), (2, 4)], side=5) for _ in range(3000))
    assert sorted(found) == [(row, column) for row in range(3) for column in range(2)]
    assert min(found.values()) > 400
    assert augment.random_offset(rng, [(5, 5)], side=5) == (0, 0)


@pytest.mark.parity
@pytest.mark.parametrize("case", golden.CASES, ids=str)
def test_golden_dihedral(case):
    recorded, tasks = golden.read(case, "dihedral.json"), golden.puzzles(case)
    assert list(augment.INVERSES) == recorded["inverse_table"]
    for entry in recorded["cases"]:
        part, index, name = re.fullmatch(r"(train|test)\[(\d+)\]\.(input|output)", entry["example"]).groups()
        task = tasks[entry["puzzle"]]
        grid = getattr((task.demos if part == "train" else task.queries)[int(index)], name)
        for shown in entry["transforms"]:
            assert augment.dihedral(grid, shown["t"]).tolist() == shown["output"]
            assert augment.dihedral(grid, augment.INVERSES[shown["t"]]).tolist() == shown["inverse_of_input"]


@pytest.mark.parity
@pytest.mark.parametrize("case", golden.CASES, ids=str)
def test_golden_variants(case):
    for call in golden.read(case, "augment.json")["cases"]:
        grid = grids.as_grid(call["grid"])
        task_id, variant = augment.parse(call["name"])
        assert task_id == call["original"]
        assert call["name"] in (task_id, variant.name(task_id))
        assert variant.apply(grid).tolist() == call["augmented"]
        assert variant.invert(grid).tolist() == call["inverse_applied_to_grid"]
        assert grids.digest(variant.apply(grid)) == call["augmented_hash"]
