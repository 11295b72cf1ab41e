"""Answering: encode the demonstrations once, then ACT steps until every row is done, all in one program.

Shapes: B rows, S grid tokens, V vocabulary.
"""

import jax
import jax.numpy as jnp
from flax import nnx, struct

from trm_jax.act import Batch, empty_carry, refill
from trm_jax.arc.rows import PADDING
from trm_jax.errors import check_choice
from trm_jax.losses import RowLosses, row_losses
from trm_jax.metrics import Metrics, context_metrics
from trm_jax.models.decoder import Latents
from trm_jax.models.encoders import Context, PerShard
from trm_jax.models.etrm import ETRM
from trm_jax.state import Tree

HALTING = ("max_steps", "q")


Loop = tuple[Latents, jax.Array, jax.Array, jax.Array, jax.Array]  # z, logits, q_halt, steps, done


@struct.dataclass
class Prediction:
    """What the model answers.

    Attributes:
        tokens: (B, S) uint8 predicted canvas.
        q_halt: (B,) float32 halt logit; its sigmoid is the model's confidence.
        steps: (B,) int32 ACT steps taken.
    """

    tokens: jax.Array
    q_halt: jax.Array
    steps: jax.Array


def encode_variants(model: ETRM, batch: Batch, variant: jax.Array, per_shard: PerShard) -> tuple[Context, jax.Array]:
    """Context of every row, with the demonstrations of adjacent rows of the same variant encoded once per device.

    Args:
        variant: (B,) int32; equal neighbours share their demonstrations.

    Returns:
        The context, and (B,) bool: the rows whose demonstrations were encoded.
    """
    def owners(_: None, variant: jax.Array) -> tuple[jax.Array, jax.Array]:
        first = jnp.concatenate([jnp.ones(1, bool), variant[1:] != variant[:-1]])
        return first, jax.lax.cummax(jnp.where(first, jnp.arange(len(variant)), 0))

    def share(_: None, tokens: jax.Array, owner: jax.Array) -> jax.Array:
        return tokens[owner]

    first, owner = per_shard(owners)(None, variant)
    context = model.encoder(batch.demos, batch.demo_mask, rows=first, per_shard=per_shard)
    return context.replace(tokens=per_shard(share)(None, context.tokens, owner)), first


def solve_rows(model: ETRM, batch: Batch, tokens: jax.Array, halt: str) -> tuple[Prediction, jax.Array]:
    """ACT steps until all rows are done: `halt` is "max_steps", or "q" to stop each row when q_halt > 0.

    Args:
        tokens: (B, T, D) context.

    Returns:
        The prediction and the logits (B, S, V) of each row's last step.
    """
    check_choice("eval.halt", halt, HALTING)
    decoder = model.decoder
    carry = refill(empty_carry(decoder, batch), batch, decoder)
    logits = jnp.zeros((*batch.inputs.shape, decoder.lm_head.out_features), jnp.float32)

    def busy(loop: Loop) -> jax.Array:
        _, _, _, steps, done = loop
        return ~done.all()

    def step(loop: Loop) -> Loop:
        z, logits, q_halt, steps, done = loop
        z, new_logits, q = decoder(z, batch.inputs, tokens)
        logits = jnp.where(done[:, None, None], logits, new_logits)
        q_halt = jnp.where(done, q_halt, q[:, 0])
        steps = jnp.where(done, steps, steps + 1)
        done = steps >= decoder.arch.halt_max_steps
        return z, logits, q_halt, steps, done | (q_halt > 0) if halt == "q" else done

    start = (carry.z, logits, jnp.zeros(len(tokens)), carry.steps, jnp.zeros(len(tokens), bool))
    _, logits, q_halt, steps, _ = jax.lax.while_loop(busy, step, start)
    return Prediction(jnp.argmax(logits, axis=-1).astype(jnp.uint8), q_halt, steps), logits


def predict(graph: nnx.GraphDef, halt: str, loss_type: str, per_shard: PerShard, params: Tree, buffers: Tree,
            batch: Batch, variant: jax.Array) -> tuple[Prediction, RowLosses, Metrics]:
    """Predictions of a batch, how right each row is, and diagnostics of the encoder.

    Args:
        graph, halt, loss_type, per_shard: static.
        variant: (B,) int32 running number of the row's (task, variant), -1 for padding.
    """
    model = nnx.merge(graph, params, buffers)
    context, encoded = encode_variants(model, batch, variant, per_shard)
    prediction, logits = solve_rows(model, batch, context.tokens, halt)
    rows = row_losses(logits, prediction.q_halt, batch.labels, loss_type)
    return prediction, rows, context_metrics(context, encoded & (variant != PADDING), batch.task)
