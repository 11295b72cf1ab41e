"""The contrastive term: its variants are variants, and its numbers those of an independent computation in PyTorch."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from tests.preset_runs import preset
from trm_jax.data.arc import grids
from trm_jax.dynamics.act import batch_shapes
from trm_jax.dynamics.contrast import Pooled, Variants, draw_variants, info_nce, pool, shown
from trm_jax.dynamics.losses import LossConfig
from trm_jax.dynamics.steps import Whole, contrastive_loss
from trm_jax.errors import ConfigError
from trm_jax.models.encoders import Context
from trm_jax.run.mesh import all_rows, data_mesh, summed_over_rows

SIDE = 6


def test_what_is_shown_is_a_variant_of_the_demonstrations():
    """All eight transforms, grids of any shape and place, with the border that data of that variant has."""
    rng = np.random.default_rng(0)
    mirror = np.array([[bool(n & 1), bool(n & 2), bool(n & 4)] for n in range(8)])
    colours = np.stack([np.concatenate([[0], 1 + rng.permutation(9)]) for _ in mirror]).astype(np.uint8)
    given, expected = np.zeros((2, 8, 3, 2, SIDE**2), np.uint8)
    for row, slot, half in np.ndindex(8, 2, 2):  # the third slot stays empty
        rows, columns = rng.integers(1, SIDE + 1, 2)
        top, left = rng.integers(0, SIDE - rows + 1), rng.integers(0, SIDE - columns + 1)
        grid = rng.integers(0, 10, (rows, columns)).astype(np.uint8)
        given[row, slot, half] = grids.tokenise(grid, SIDE, (top, left))
        grid = colours[row][grid]
        if mirror[row, 0]:
            grid, top, left, rows, columns = grid.T, left, top, columns, rows
        if mirror[row, 1]:
            grid, top = grid[::-1], SIDE - top - rows
        if mirror[row, 2]:
            grid, left = grid[:, ::-1], SIDE - left - columns
        expected[row, slot, half] = grids.tokenise(grid, SIDE, (top, left))
    found = jax.jit(shown)(given, Variants(jnp.arange(8), jnp.asarray(mirror), jnp.asarray(colours)))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_variants_are_drawn_for_each_row():
    drawn = draw_variants(jax.random.key(0), 400)
    np.testing.assert_array_equal(np.sort(drawn.colours, axis=1), np.tile(np.arange(10), (400, 1)))
    assert (np.asarray(drawn.colours)[:, 0] == 0).all() and len({row.tobytes() for row in np.asarray(
        drawn.colours)}) == 400
    counts = np.bincount(np.asarray(drawn.mirror) @ [1, 2, 4], minlength=8)
    assert counts.min() > 25 and drawn.colours.dtype == np.uint8


def test_the_loss_and_its_gradient_are_those_of_an_independent_computation():
    """Rows of one task are no negatives of each other, and rows that are not encoded count for nothing."""
    rng, rows = np.random.default_rng(0), 7
    own, second = rng.normal(size=(2, rows, 3, 8)).astype(np.float32)
    task = np.array([0, 1, 1, 2, 3, 0, 4], np.int32)
    encoded = np.array([1, 1, 1, 1, 0, 1, 1], bool)

    def ours(own, second):
        sides = [Pooled(pool(tokens), jnp.arange(rows), jnp.asarray(task), jnp.asarray(encoded))
                 for tokens in (own, second)]
        return info_nce(*sides, 0.2)

    loss, gradient = jax.jit(jax.value_and_grad(ours, (0, 1)))(own, second)

    given = [torch.tensor(tokens, requires_grad=True) for tokens in (own, second)]
    a, b = (F.normalize(tokens.mean(dim=1), dim=1) for tokens in given)
    same = torch.tensor(task)[:, None] == torch.tensor(task)[None]
    left_out = (same & ~torch.eye(rows, dtype=torch.bool)) | ~torch.tensor(encoded)[None]
    similar = (a @ b.T / 0.2).masked_fill(left_out, -torch.inf)[torch.tensor(encoded)]
    expected = F.cross_entropy(similar, torch.arange(rows)[torch.tensor(encoded)], reduction="sum")
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-6)
    for found, tensor in zip(gradient, given, strict=True):
        np.testing.assert_allclose(found, tensor.grad, rtol=0, atol=1e-6)
    assert not np.asarray(gradient)[:, 4].any() and np.abs(gradient).max() > 1e-2


def test_rows_of_four_devices_are_contrasted_as_those_of_one():
    """The term and its gradient, also by the second variants that other devices show, of an encoder that is a product.

    Devices have tasks in common, and different numbers of rows that are encoded.
    """
    rng, rows = np.random.default_rng(0), 8
    batch = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), batch_shapes(rows, 2, SIDE**2)).replace(
        demos=rng.integers(0, 12, (rows, 2, 2, SIDE**2), np.uint8), task=np.array([0, 1, 1, 2, 3, 0, 4, 2], np.int32))
    encoded = np.array([1, 1, 1, 0, 1, 1, 0, 0], bool)
    weights = rng.normal(size=(batch.demos[0].size, 15)).astype(np.float32)
    recipe = types.SimpleNamespace(loss=LossConfig("softmax", 0.0, 1.0, 0.2), all_rows=all_rows)
    second = jax.jit(draw_variants, static_argnums=1)(jax.random.key(0), rows)

    def term(everywhere, batch, encoded, second):
        weights, count = everywhere

        def loss(weights):
            def encode(demos, *_, **__):
                return Context((demos.reshape(len(demos), -1).astype(jnp.float32) @ weights).reshape(-1, 3, 5))

            model = types.SimpleNamespace(encoder=encode)
            whole = Whole(rows, count, jnp.ones(()))
            return contrastive_loss(recipe, model, encode(batch.demos), batch, encoded, second, whole)

        return jax.value_and_grad(loss)(weights), (), ()

    one, four = (jax.jit(summed_over_rows(data_mesh(jax.devices()[:number]))(term))(
        (weights, jnp.float32(encoded.sum())), batch, encoded, second)[0] for number in (1, 4))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, four)
    assert one[0] > 0.1 and np.abs(one[1]).max() > 1e-3


def test_a_row_alone_has_nothing_to_be_told_from():
    vector = jnp.ones((2, 4)) / 2
    rows = Pooled(vector, jnp.arange(2), jnp.zeros(2, jnp.int32), jnp.array([True, False]))
    loss, gradient = jax.value_and_grad(lambda v: info_nce(rows.replace(vector=v), rows, 0.1))(vector)
    assert loss == 0 and not gradient.any()


@pytest.mark.parametrize(("name", "changes", "message"), [
    ("trm", {}, "no effect with encoder.type='embedding'"),
    ("o1", {"train.microbatches": 2}, "which train.microbatches=2 parts"),
    ("o1", {"loss.contrastive_weight": -1.0}, "loss.contrastive_weight=-1.0"),
    ("o1", {"loss.contrastive_temperature": 0.0}, "loss.contrastive_temperature=0.0")])
def test_what_cannot_be_contrasted(name, changes, message, source):
    config = preset(name, source)
    config.update_from_flattened_dict({"loss.contrastive_weight": 0.1} | changes)
    with pytest.raises(ConfigError, match=message):
        tiny.settings(config)
