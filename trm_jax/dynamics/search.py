"""Latent search: gradient steps on a context, until the demonstrations that it was made of come out right.

Macfarlane & Bonnet 2024 (Searching Latent Program Spaces), carried over to a recursive decoder. No weight changes. The
context starts as the encoder gives it from all demonstrations of a variant; each demonstration's input is then a query
to be answered with the context as it stands, its output being the answer. What counts is the token loss of the last
ACT step, in the mean over demonstrations. As in training, its gradient passes through that step's last H-cycle only.

Shapes: B rows, K demonstration slots, S grid tokens, T context tokens, D hidden size.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from flax import struct

from trm_jax.data.arc.grids import IGNORE, PAD
from trm_jax.dynamics.act import Batch
from trm_jax.dynamics.losses import row_losses
from trm_jax.models.decoder import Decoder
from trm_jax.models.encoders.packing import Chunks


@dataclasses.dataclass(frozen=True)
class Search:
    """How far a context is searched.

    Attributes:
        steps: gradient steps, at least 1.
        lr: of Adam, relative to the root mean square of the context that the search starts from.
    """

    steps: int
    lr: float


class Found(struct.PyTreeNode):
    """The best context seen, by the loss of the demonstrations.

    Attributes:
        tokens: (B, T, D) float32.
        loss: (B,) its loss; 0 for a row that is not searched.
        start_loss: (B,) that of the context which the search started from.
    """

    tokens: jax.Array
    loss: jax.Array
    start_loss: jax.Array


class _Loop(struct.PyTreeNode):
    """The context as it stands, its optimiser's state, and the best one so far."""

    tokens: jax.Array
    opt: optax.OptState
    found: Found


def search(decoder: Decoder, batch: Batch, rows: jax.Array, tokens: jax.Array, loss_type: str, how: Search) -> Found:
    """Searches the contexts of `rows`, each by itself.

    Args:
        batch: only its demonstrations are read.
        rows: (B,) bool; the others keep their context.
        tokens: (B, T, D) as the encoder gives them.
    """
    start = tokens.astype(jnp.float32)
    rate = how.lr * jnp.sqrt(jnp.square(start).mean(axis=(1, 2), keepdims=True))
    adam = optax.adam(1.0)

    def step(i: jax.Array, loop: _Loop) -> _Loop:
        loss, gradient = demonstration_loss(decoder, batch, rows, loop.tokens, loss_type)
        best, better = loop.found, loss < loop.found.loss
        found = Found(jnp.where(better[:, None, None], loop.tokens, best.tokens), jnp.where(better, loss, best.loss),
                      jnp.where(i == 0, loss, best.start_loss))
        updates, opt = adam.update(gradient, loop.opt)
        return _Loop(loop.tokens + rate * updates, opt, found)

    worst = jnp.full_like(start[:, 0, 0], jnp.inf)
    begin = _Loop(start, adam.init(start), Found(start, worst, worst))
    return jax.lax.fori_loop(0, how.steps + 1, step, begin).found  # one more: the last context is judged too


def demonstration_loss(decoder: Decoder, batch: Batch, rows: jax.Array, tokens: jax.Array,
                       loss_type: str) -> tuple[jax.Array, jax.Array]:
    """Loss (B,) of the demonstrations of `rows` (B,) with the contexts (B, T, D), and its gradient by these.

    Demonstrations are answered B at a time; slots without one, and rows that are not asked for, cost nothing.
    """
    B, K = batch.demo_mask.shape
    asked = batch.demo_mask & rows[:, None]
    chunks = Chunks(B, batch.demos.reshape(B * K, *batch.demos.shape[2:]), asked.reshape(-1))

    def loss_of(contexts: jax.Array, pairs: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits, q_halt = answer(decoder, pairs[:, 0], contexts)
        labels = jnp.where(pairs[:, 1] == PAD, IGNORE, pairs[:, 1].astype(jnp.int32))
        loss = row_losses(logits, q_halt, labels, loss_type).lm
        return loss.sum(), loss

    def add(i: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        owner = chunks.order[i] // K  # B, which is no row, for what fills up the last chunk
        contexts = tokens.at[owner].get(mode="clip")
        (_, loss), gradient = jax.value_and_grad(loss_of, has_aux=True)(contexts, chunks.take(i))
        return sums[0].at[owner].add(loss, mode="drop"), sums[1].at[owner].add(gradient, mode="drop")

    zeros = jnp.zeros_like(tokens[:, 0, 0]), jnp.zeros_like(tokens)
    loss, gradient = jax.lax.fori_loop(0, chunks.count, add, zeros)
    count = jnp.maximum(asked.sum(axis=1), 1).astype(jnp.float32)
    return loss / count, gradient / count[:, None, None]


def answer(decoder: Decoder, inputs: jax.Array, contexts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits (N, S, V) and halt logits (N,) of the last ACT step; only that step can be differentiated."""
    still = jax.lax.stop_gradient(contexts)
    z = jax.lax.fori_loop(0, decoder.arch.halt_max_steps - 1, lambda _, z: decoder(z, inputs, still)[0],
                          decoder.initial(len(inputs)))
    _, logits, q = decoder(jax.lax.stop_gradient(z), inputs, contexts)
    return logits, q[:, 0]
