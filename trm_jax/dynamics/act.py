"""Adaptive computation time: the carry of rows being solved, how halted rows are refilled, and when rows halt.

Shapes: B rows, K demonstration slots, S grid tokens, T context tokens, D hidden size.
"""

import jax
import jax.numpy as jnp
from flax import struct

from trm_jax.models.decoder import ArchConfig, Decoder, Latents

MIN_EXPLORED_STEPS = 2


class Batch(struct.PyTreeNode):
    """Rows to solve: a query each, with the demonstrations of its task.

    Attributes:
        inputs: (B, S) uint8 tokens of the query.
        labels: (B, S) int32 tokens of the answer, -100 where the loss looks away.
        demos: (B, K, 2, S) uint8 tokens of demonstration inputs and outputs.
        demo_mask: (B, K) bool, which slots hold a demonstration.
        task: (B,) int32, which original task the row comes from.
        row: (B,) int32, row of the task's variant in an embedding table; 0 where there is no table.
    """

    inputs: jax.Array
    labels: jax.Array
    demos: jax.Array
    demo_mask: jax.Array
    task: jax.Array
    row: jax.Array


def batch_shapes(rows: int, slots: int, seq_len: int) -> Batch:
    """Shapes and dtypes of a batch, in place of its arrays."""
    return jax.eval_shape(lambda: Batch(
        inputs=jnp.zeros((rows, seq_len), jnp.uint8), labels=jnp.zeros((rows, seq_len), jnp.int32),
        demos=jnp.zeros((rows, slots, 2, seq_len), jnp.uint8), demo_mask=jnp.zeros((rows, slots), bool),
        task=jnp.zeros(rows, jnp.int32), row=jnp.zeros(rows, jnp.int32)))


class Carry(struct.PyTreeNode):
    """What rows keep between ACT steps, and in the original dynamics between batches.

    Attributes:
        batch: the rows' own data.
        z: recurrent states, (B, T+S, D) each.
        context: (B, T, D), the context a row was last given (encode="once" reads it again).
        steps: (B,) int32, ACT steps taken.
        halted: (B,) bool; a halted row is replaced at the next step.
    """

    batch: Batch
    z: Latents
    context: jax.Array
    steps: jax.Array
    halted: jax.Array


def empty_carry(decoder: Decoder, batch: Batch) -> Carry:
    """A carry of the batch's shapes in which every row has halted."""
    B = len(batch.inputs)
    context = jnp.zeros((B, decoder.arch.puzzle_emb_len, decoder.arch.hidden_size), decoder.arch.dtype)
    return Carry(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), batch), decoder.initial(B), context,
                 steps=jnp.zeros(B, jnp.int32), halted=jnp.ones(B, bool))


def refill(carry: Carry, batch: Batch, decoder: Decoder) -> Carry:
    """Rows that have halted take the batch's row and start; the others keep theirs. `halted` says which started."""
    start = carry.halted

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(start.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    initial = jax.lax.stop_gradient(decoder.initial(len(start)))
    return carry.replace(
        batch=jax.tree.map(choose, batch, carry.batch),
        z=jax.tree.map(choose, initial, carry.z),
        steps=jnp.where(start, 0, carry.steps),
    )


class Exploration(struct.PyTreeNode):
    """Random numbers of the halting rule, one draw per row.

    Attributes:
        uniform: (B,) in 0..1, compared with `halt_exploration_prob`.
        min_steps: (B,) int32, uniform in 2..halt_max_steps, never above it.
    """

    uniform: jax.Array
    min_steps: jax.Array


def explore(key: jax.Array, rows: int, halt_max_steps: int) -> Exploration:
    """Draws the exploration of `rows` rows."""
    uniform_key, steps_key = jax.random.split(key)
    least = min(MIN_EXPLORED_STEPS, halt_max_steps)
    return Exploration(jax.random.uniform(uniform_key, (rows,)),
                       jax.random.randint(steps_key, (rows,), least, halt_max_steps + 1))


def has_halted(steps: jax.Array, q_halt: jax.Array, exploration: Exploration, arch: ArchConfig) -> jax.Array:
    """Which rows halt in training after `steps` (B,) ACT steps with halt logits `q_halt` (B,).

    A row halts at the step limit or when q_halt > 0; with probability `halt_exploration_prob` it must first have
    taken a random number of steps (Graves 2016; TRM, section 2).
    """
    halted = (steps >= arch.halt_max_steps) | (q_halt > 0)
    required = jnp.where(exploration.uniform < arch.halt_exploration_prob, exploration.min_steps, 0)
    return halted & (steps >= required)
