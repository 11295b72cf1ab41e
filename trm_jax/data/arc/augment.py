"""Variants of a task: one permutation of the colours, then one of the eight symmetries of the square.

A variant changes every grid of a task alike. It is named `ID|||t<transform>|||<image of colours 0..9>`; the
bare task id names the identity. Offsets on the canvas are no part of it: a pair draws its own, in training.
"""

import dataclasses
import functools
import hashlib
import math
import re

import numpy as np

from trm_jax.data.arc.grids import COLOURS, Grid, Shape

SEPARATOR = "|||"
INVERSES = (0, 3, 2, 1, 4, 5, 6, 7)
_SUFFIX = re.compile(r"t(\d)\|\|\|(\d{10})")


# One row per transform; all return views. Rotations are counter-clockwise.
_DIHEDRAL = (
    lambda grid: grid,
    lambda grid: grid.T[::-1],  # 90°
    lambda grid: grid[::-1, ::-1],  # 180°
    lambda grid: grid.T[:, ::-1],  # 270°
    lambda grid: grid[:, ::-1],  # left-right
    lambda grid: grid[::-1],  # up-down
    lambda grid: grid.T,
    lambda grid: grid.T[::-1, ::-1],  # 90°, then left-right
)
TRANSFORMS = len(_DIHEDRAL)


def dihedral(grid: Grid, transform: int) -> Grid:
    """0 identity, 1..3 rotations by 90°, 180°, 270° counter-clockwise, 4 flip left-right, 5 flip up-down,
    6 transpose, 7 rotation by 90° then flip left-right. Returns a view; INVERSES undoes it."""
    return _DIHEDRAL[transform](grid)


@dataclasses.dataclass(frozen=True)
class Variant:
    """`transform` 0..7; `colours[c]` is what colour c becomes. Colour 0, mostly the background, stays."""

    transform: int = 0
    colours: tuple[int, ...] = tuple(range(COLOURS))

    def __post_init__(self):
        if not 0 <= self.transform < TRANSFORMS:
            raise ValueError(f"transform {self.transform} is outside 0..{TRANSFORMS - 1}")
        if sorted(self.colours) != list(range(COLOURS)) or self.colours[0] != 0:
            raise ValueError(f"colours {self.colours} are no permutation of 0..9 that keeps 0")

    def name(self, task_id: str) -> str:
        """The variant's name; the identity is written out too."""
        return f"{task_id}{SEPARATOR}t{self.transform}{SEPARATOR}{''.join(map(str, self.colours))}"

    def apply(self, grid: Grid) -> Grid:
        return dihedral(self._forward[grid], self.transform)

    def invert(self, grid: Grid) -> Grid:
        """Undoes `apply`."""
        return self._backward[dihedral(grid, INVERSES[self.transform])]

    @functools.cached_property
    def _forward(self) -> np.ndarray:
        return np.array(self.colours, np.uint8)

    @functools.cached_property
    def _backward(self) -> np.ndarray:
        return np.argsort(self._forward).astype(np.uint8)


IDENTITY = Variant()


def parse(name: str) -> tuple[str, Variant]:
    """Splits a variant's name into task id and variant; a name without separator is the identity's.

    Raises:
      ValueError: the name has a separator but not the form above.
    """
    task_id, separator, suffix = name.partition(SEPARATOR)
    if not separator:
        return name, IDENTITY
    match = _SUFFIX.fullmatch(suffix)
    if not match:
        raise ValueError(f"variant name {name!r} is not of the form ID|||t<0..7>|||<10 digits>")
    return task_id, Variant(int(match[1]), tuple(map(int, match[2])))


def most_variants(colours: bool = True) -> int:
    """How many variants a task has: 8·9!, or 8 where the colours stay."""
    return TRANSFORMS * (math.factorial(COLOURS - 1) if colours else 1)


def random_variant(rng: np.random.Generator, colours: bool = True) -> Variant:
    """Uniform over all variants, or over those that leave the `colours` as they are."""
    transform = int(rng.integers(TRANSFORMS))
    return Variant(transform, (0, *(1 + rng.permutation(COLOURS - 1)).tolist())) if colours else Variant(transform)


def distinct_variants(rng: np.random.Generator, count: int, colours: bool = True) -> list[Variant]:
    """The identity and `count` - 1 different random variants. A longer list starts with the shorter ones.

    Raises:
      ValueError: `count` is below 1, or more than there are variants.
    """
    if not 1 <= count <= most_variants(colours):
        raise ValueError(f"{count} variants asked for; a task has 1, the identity, to {most_variants(colours)}")
    variants = {IDENTITY: None}  # a dict is an ordered set
    while len(variants) < count:
        variants[random_variant(rng, colours)] = None
    return list(variants)


def fixed_variants(task_id: str, count: int, seed: int, colours: bool = True) -> list[Variant]:
    """The variants of a task that evaluation votes over and that `data.variants` trains on: a pure function of
    (seed, task id), number 0 the task itself. Raises ValueError where `distinct_variants` does."""
    task_hash = hashlib.sha256(task_id.encode()).digest()
    return distinct_variants(np.random.default_rng((seed, int.from_bytes(task_hash[:8], "little"))), count, colours)


def extent(shapes: list[Shape]) -> Shape:
    """The smallest (rows, columns) that covers all `shapes`."""
    return max(rows for rows, _ in shapes), max(columns for _, columns in shapes)


def random_offset(rng: np.random.Generator, shapes: list[Shape], side: int) -> Shape:
    """One (row, column) offset for the grids of a pair, uniform over what keeps `shapes` on the canvas."""
    rows, columns = extent(shapes)
    # `random` costs a sixth of `integers`, and this runs for every pair of every row.
    return int(rng.random() * (side - rows + 1)), int(rng.random() * (side - columns + 1))
