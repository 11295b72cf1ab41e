"""Answering: encode the demonstrations once, then ACT steps until every row is done, all in one program.

Shapes: B rows, S grid tokens, T context tokens, D hidden size, V vocabulary.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx, struct

from trm_jax.data.arc.rows import PADDING
from trm_jax.dynamics.act import Batch
from trm_jax.dynamics.collapse import Statistics
from trm_jax.dynamics.losses import RowLosses, row_losses
from trm_jax.dynamics.search import Search, search
from trm_jax.dynamics.state import Tree
from trm_jax.models.decoder import Latents
from trm_jax.models.encoders import Context
from trm_jax.models.etrm import ETRM

HALTING = ("max_steps", "q")


class Prediction(struct.PyTreeNode):
    """What the model answers.

    Attributes:
        tokens: (B, S) uint8 predicted canvas.
        q_halt: (B,) float32 halt logit; its sigmoid is the model's confidence.
        steps: (B,) int32 ACT steps taken; 0 for a padded row.
    """

    tokens: jax.Array
    q_halt: jax.Array
    steps: jax.Array


class Searched(struct.PyTreeNode):
    """What a latent search has changed, beside the answer that it led to.

    Attributes:
        prediction, rows: without it, from the encoder's context.
        loss, start_loss: (B,) token loss of the demonstrations with the context found, and with the encoder's.
    """

    prediction: Prediction
    rows: RowLosses
    loss: jax.Array
    start_loss: jax.Array


# Of parameters, buffers, batch, variant. With a latent search, a Searched stands behind the two.
Predict = Callable[..., tuple[Prediction, RowLosses] | tuple[Prediction, RowLosses, Searched]]
Measure = Callable[..., Statistics]  # of parameters, buffers, batch, variant, groups


class _Loop(struct.PyTreeNode):
    """Rows under way; `logits` (B, S, V), `q_halt` and `steps` (B,) stand still once a row is `done` (B,)."""

    z: Latents
    logits: jax.Array
    q_halt: jax.Array
    steps: jax.Array
    done: jax.Array


def encode_variants(model: ETRM, batch: Batch, variant: jax.Array) -> Context:
    """Context of every row, with the demonstrations of adjacent rows of the same variant encoded once.

    Args:
        variant: (B,) int32; equal neighbours share their demonstrations.
    """
    first, owner = _owners(variant)
    context = model.encoder(batch.demos, batch.demo_mask, entries=model.encoder.entries(batch.row), rows=first)
    return context.replace(tokens=context.tokens[owner])


def _owners(variant: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Which rows (B,) bool are the first of their variant, padding apart, and the number (B,) of each row's first."""
    first = jnp.concatenate([jnp.ones(1, bool), variant[1:] != variant[:-1]])
    owner = jax.lax.cummax(jnp.where(first, jnp.arange(len(variant)), 0))
    return first & (variant != PADDING), owner


def solve_rows(model: ETRM, batch: Batch, tokens: jax.Array, real: jax.Array,
               halt: str) -> tuple[Prediction, jax.Array]:
    """ACT steps until all rows are done: `halt` is "max_steps", or "q" to stop each row when q_halt > 0.

    Args:
        tokens: (B, T, D) context.
        real: (B,) bool; the other rows are padding, for which no step is taken.

    Returns:
        The prediction and the logits (B, S, V) of each row's last step.
    """
    decoder = model.decoder

    def step(loop: _Loop) -> _Loop:
        z, logits, q = decoder(loop.z, batch.inputs, tokens)
        logits = jnp.where(loop.done[:, None, None], loop.logits, logits)
        q_halt = jnp.where(loop.done, loop.q_halt, q[:, 0])
        steps = jnp.where(loop.done, loop.steps, loop.steps + 1)
        done = loop.done | (steps >= decoder.arch.halt_max_steps)
        return _Loop(z, logits, q_halt, steps, done | (q_halt > 0) if halt == "q" else done)

    B, S = batch.inputs.shape
    none = jnp.zeros_like(real, jnp.float32)  # of the device that the rows are on, as all that a loop begins with
    logits = jnp.broadcast_to(none[:, None, None], (B, S, decoder.lm_head.out_features))
    start = _Loop(decoder.initial(B), logits, none, none.astype(jnp.int32), ~real)
    end = jax.lax.while_loop(lambda loop: ~loop.done.all(), step, start)
    return Prediction(jnp.argmax(end.logits, axis=-1).astype(jnp.uint8), end.q_halt, end.steps), end.logits


def predict(graph: nnx.GraphDef, halt: str, loss_type: str, params: Tree, buffers: Tree, batch: Batch,
            variant: jax.Array) -> tuple[Prediction, RowLosses]:
    """Predictions of a batch, and how right each row is. No row depends on another.

    Args:
        graph, halt, loss_type: static.
        variant: (B,) int32 running number of the row's (task, variant), PADDING for a padded row.
    """
    model = nnx.merge(graph, params, buffers)
    return _answered(model, batch, encode_variants(model, batch, variant).tokens, variant, halt, loss_type)


def _answered(model: ETRM, batch: Batch, tokens: jax.Array, variant: jax.Array, halt: str,
              loss_type: str) -> tuple[Prediction, RowLosses]:
    prediction, logits = solve_rows(model, batch, tokens, variant != PADDING, halt)
    return prediction, row_losses(logits, prediction.q_halt, batch.labels, loss_type)


def predict_searching(graph: nnx.GraphDef, halt: str, loss_type: str, how: Search, params: Tree, buffers: Tree,
                      batch: Batch, variant: jax.Array) -> tuple[Prediction, RowLosses, Searched]:
    """`predict` from the contexts that a latent search finds, one for each variant, and what it is without.

    Args:
        how: static.
    """
    model = nnx.merge(graph, params, buffers)
    tokens = encode_variants(model, batch, variant).tokens
    first, owner = _owners(variant)
    found = search(model.decoder, batch, first, tokens, loss_type, how)
    without = _answered(model, batch, tokens, variant, halt, loss_type)
    return (*_answered(model, batch, found.tokens[owner], variant, halt, loss_type),
            Searched(*without, found.loss[owner], found.start_loss[owner]))


def contexts(graph: nnx.GraphDef, params: Tree, buffers: Tree, batch: Batch, variant: jax.Array) -> Context:
    """Context of a batch, for `collapse.measure`.

    Args:
        graph: static.
        variant: (B,) int32, PADDING for a padded row, which is not encoded.
    """
    encoder = nnx.merge(graph, params, buffers).encoder
    return encoder(batch.demos, batch.demo_mask, entries=encoder.entries(batch.row), rows=variant != PADDING)
