"""Exploration, halting and refilling, against the rule as the paper states it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.dynamics.test_inference import ARCH
from trm_jax.dynamics.act import Batch, Exploration, empty_carry, explore, has_halted, refill
from trm_jax.models.decoder import Latents


def test_exploration_draws_every_number_of_steps_alike_and_for_each_row_anew():
    found = explore(jax.random.key(0), 60_000, halt_max_steps=5)
    counts = np.bincount(found.min_steps, minlength=7)
    assert counts[:2].sum() == counts[6] == 0
    np.testing.assert_allclose(counts[2:6], 15_000, rtol=0.03)
    np.testing.assert_allclose(np.histogram(found.uniform, bins=10, range=(0, 1))[0], 6_000, rtol=0.05)
    assert abs(np.corrcoef(found.uniform, found.min_steps)[0, 1]) < 0.02
    assert set(np.asarray(explore(jax.random.key(0), 64, halt_max_steps=1).min_steps)) == {1}


@pytest.mark.parametrize(("steps", "q", "uniform", "min_steps", "halts"), [
    (1, -1.0, 0.9, 2, False),  # neither the limit nor the Q-head
    (1, 1.0, 0.9, 2, True),  # the Q-head, not explored
    (1, 1.0, 0.1, 2, False),  # explored: a second step is required
    (2, 1.0, 0.1, 2, True),
    (2, 0.0, 0.9, 2, False),  # 0 is not above 0
    (4, -1.0, 0.9, 2, True),  # the limit
    (4, -1.0, 0.1, 4, True),  # which is never exceeded
])
def test_halting(steps, q, uniform, min_steps, halts):
    arch = dataclasses.replace(ARCH, halt_max_steps=4, halt_exploration_prob=0.5)
    drawn = Exploration(jnp.asarray([uniform]), jnp.asarray([min_steps]))
    assert bool(has_halted(jnp.asarray([steps]), jnp.asarray([q]), drawn, arch)[0]) == halts


class Fixed:
    """A decoder's arch and initial state, all ones."""

    arch = ARCH

    def initial(self, rows):
        ones = jnp.ones((rows, 3, ARCH.hidden_size))
        return Latents(ones, ones)


def batch(fill, rows=3):
    return Batch(inputs=jnp.full((rows, 1), fill, jnp.uint8), labels=jnp.full((rows, 1), fill, jnp.int32),
                 demos=jnp.full((rows, 2, 2, 1), fill, jnp.uint8), demo_mask=jnp.full((rows, 2), fill % 2 == 1),
                 task=jnp.full(rows, fill, jnp.int32), row=jnp.full(rows, fill, jnp.int32))


def test_a_halted_row_takes_all_of_the_new_row_and_the_others_keep_all_of_theirs():
    carry = refill(empty_carry(Fixed(), batch(0)), batch(1), Fixed())
    assert carry.halted.all()  # which says that all have just started
    carry = carry.replace(z=jax.tree.map(lambda z: z + 1, carry.z), steps=carry.steps + 2,
                          halted=jnp.asarray([False, True, False]))
    carry = refill(carry, batch(2), Fixed())
    for leaf in (carry.batch.inputs, carry.batch.labels, carry.batch.demos, carry.batch.task):
        np.testing.assert_array_equal(leaf.reshape(3, -1)[:, 0], [1, 2, 1])
    np.testing.assert_array_equal(carry.batch.demo_mask[:, 0], [True, False, True])
    np.testing.assert_array_equal(carry.z.z_H[:, 0, 0], [2, 1, 2])
    np.testing.assert_array_equal(carry.steps, [2, 0, 2])
    np.testing.assert_array_equal(carry.halted, [False, True, False])
