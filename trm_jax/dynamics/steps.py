"""The two training dynamics: (TrainState, Batch) → (TrainState, Metrics), pure functions.

Both are made of one update: encode the rows that are to be encoded, take one ACT step, and follow its gradient.
Shapes: B rows, T context tokens, D hidden size.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, struct

from trm_jax.dynamics.act import Batch, Carry, Exploration, empty_carry, explore, has_halted, refill
from trm_jax.dynamics.collapse import collapse_metrics, measure
from trm_jax.dynamics.contrast import Pooled, Variants, draw_variants, info_nce, pool, shown
from trm_jax.dynamics.losses import LossConfig, RowLosses, row_losses, total_loss
from trm_jax.dynamics.metrics import Mean, Metrics, mean_over, single, solving_metrics
from trm_jax.dynamics.optim import Optimiser, moving_average
from trm_jax.dynamics.state import RowSums, TrainState, Tree
from trm_jax.errors import ConfigError, check_choice
from trm_jax.models.encoders import Context
from trm_jax.models.etrm import ETRM

DRAWS, SKETCH = 0, 1  # streams of random numbers: what trains, and what only looks on
SECOND = 2  # of a draw: apart, so that the others are the same with a contrastive term and without


@dataclasses.dataclass(frozen=True)
class ModeConfig:
    """The `mode` section; configs/base.py says what each field means."""

    name: str
    num_act_steps: int
    encode: str

    def __post_init__(self) -> None:
        check_choice("mode.name", self.name, STEPS)
        check_choice("mode.encode", self.encode, ("once", "every_step"))
        if self.name == "online" and self.encode == "once":
            raise ConfigError("mode.encode='once' exists in the original dynamics only; online mode encodes at "
                              "every ACT step: set mode.encode='every_step'")
        if self.num_act_steps < 1:
            raise ConfigError(f"mode.num_act_steps={self.num_act_steps} must be at least 1")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a step needs besides its arguments; all of it is static under jit.

    Attributes:
        groups: tasks that rows come from, `Batch.task` counts them.
        row_sums: takes the gradient over all rows, wherever they lie; by default they are all here.
        all_rows: the same arrays of all rows, wherever they lie, in the place of these rows' own.
        sketch_width: numbers in which contexts of a task are compared, see `collapse.measure`; None: all of them.
    """

    graph: nnx.GraphDef
    mode: ModeConfig
    loss: LossConfig
    optimiser: Optimiser
    groups: int
    row_sums: RowSums = lambda f: f
    all_rows: Callable[[Any], Any] = lambda rows: rows
    sketch_width: int | None = None


class Draws(struct.PyTreeNode):
    """Random numbers of one update, at global shape, so that they do not depend on the device count.

    Attributes:
        exploration: halting rule, None in online mode.
        eps: noise of the latent, None for an encoder without one.
        second: the variants of the contrastive term, None without one.
    """

    exploration: Exploration | None
    eps: jax.Array | None
    second: Variants | None = None


def draw(key: jax.Array, model: ETRM, batch: Batch, recipe: Recipe) -> Draws:
    """Draws the randomness of one update."""
    explore_key, noise_key = jax.random.split(key)
    rows, slots = batch.demo_mask.shape
    exploring, contrasting = recipe.mode.name != "online", recipe.loss.contrastive_weight > 0
    return Draws(explore(explore_key, rows, model.decoder.arch.halt_max_steps) if exploring else None,
                 model.encoder.noise(noise_key, rows, slots),
                 draw_variants(jax.random.fold_in(key, SECOND), rows) if contrasting else None)


class Whole(struct.PyTreeNode):
    """The batch that some rows are part of: how many rows it has, how many of them are encoded, where the loss needs
    that, and how many units of the latent."""

    rows: int = struct.field(pytree_node=False)
    encoded: jax.Array
    units: jax.Array


class Forward(struct.PyTreeNode):
    """What one ACT step computes besides its loss and the carry."""

    context: Context
    logits: jax.Array
    q: jax.Array
    rows: RowLosses


def act_step(model: ETRM, carry: Carry, encoded: jax.Array, entries: jax.Array | None, eps: jax.Array | None,
             loss: LossConfig, whole: Whole) -> tuple[jax.Array, tuple[Carry, Forward]]:
    """One ACT step on the carry's own data: what it adds to the loss of the whole batch, and its outcome.

    Args:
        encoded: (B,) bool, rows whose context is encoded now, with gradient; the others read theirs in the carry.
        entries: (B, W), what the rows find in the embedding table; None without one.
    """
    batch = carry.batch
    context = model.encoder(batch.demos, batch.demo_mask, entries=entries, eps=eps, rows=encoded)
    kept = jax.lax.stop_gradient(carry.context)
    tokens = jnp.where(encoded[:, None, None], context.tokens.astype(kept.dtype), kept)
    z, logits, q = model.decoder(carry.z, batch.inputs, tokens)
    rows = row_losses(logits, q[:, 0], batch.labels, loss.type)
    carry = carry.replace(z=z, context=jax.lax.stop_gradient(tokens), steps=carry.steps + 1)
    kl = context.kl_share(whole.units)
    return total_loss(rows, kl, loss.kl_weight, whole.rows), (carry, Forward(context, logits, q, rows))


def contrastive_loss(recipe: Recipe, model: ETRM, own: Context, batch: Batch, encoded: jax.Array, second: Variants,
                     whole: Whole) -> jax.Array:
    """What these rows add to the mean contrastive loss over the encoded rows of the whole batch."""
    other = model.encoder(shown(batch.demos, second), batch.demo_mask, rows=encoded)
    pooled, others = (Pooled(pool(context.tokens), second.row, batch.task, encoded) for context in (own, other))
    return (info_nce(pooled, recipe.all_rows(others), recipe.loss.contrastive_temperature)
            / jnp.maximum(whole.encoded, 1))


def update(recipe: Recipe, state: TrainState, carry: Carry, encoded: jax.Array,
           draws: Draws) -> tuple[TrainState, Carry, Forward, Metrics]:
    """One ACT step, its gradient, and one optimiser update of `state`: of its parameters, and of its table if any."""
    def of_rows(everywhere: tuple[Tree, Tree, Whole], carry: Carry, encoded: jax.Array, eps: jax.Array | None,
                second: Variants | None) -> tuple[Any, Any, Any]:
        params, buffers, whole = everywhere

        def loss_of(params: Tree, entries: jax.Array | None) -> tuple[jax.Array, tuple[Any, tuple[Carry, Forward]]]:
            model = nnx.merge(recipe.graph, params, buffers)
            loss, (stepped, forward) = act_step(model, carry, encoded, entries, eps, recipe.loss, whole)
            if second is None:
                return loss, (None, (stepped, forward))
            apart = contrastive_loss(recipe, model, forward.context, carry.batch, encoded, second, whole)
            return loss + recipe.loss.contrastive_weight * apart, (apart, (stepped, forward))

        entries = nnx.merge(recipe.graph, params, buffers).encoder.entries(carry.batch.row)
        (loss, (apart, outcome)), (grads, in_table) = jax.value_and_grad(loss_of, (0, 1), has_aux=True)(params, entries)
        looked_up = None if entries is None else (carry.batch.row, in_table)
        return (loss, grads, encoded.sum(dtype=jnp.float32), apart), looked_up, outcome

    encoder = nnx.merge(recipe.graph, state.params, state.buffers).encoder
    units = encoder.latent_units(carry.batch.demo_mask, encoded)
    whole = Whole(len(encoded), jnp.ones(()) if draws.second is None else encoded.sum(dtype=jnp.float32),
                  jnp.ones(()) if units is None else units.sum(dtype=jnp.float32))
    (loss, grads, encoded_rows, apart), looked_up, (stepped, forward) = recipe.row_sums(of_rows)(
        (state.params, state.buffers, whole), carry, encoded, draws.eps, draws.second)
    params, opt, norms = recipe.optimiser.update(grads, state.opt, state.params, state.step, encoded_rows > 0)
    buffers = state.buffers
    if looked_up is not None:
        row, in_table = looked_up
        table = recipe.optimiser.update_table(buffers["encoder"]["table"], row, in_table, state.step)
        buffers = buffers | {"encoder": {"table": table}}
    metrics = {
        "loss": single(loss),
        **collapse_metrics(measure(forward.context, encoded, carry.batch.task, recipe.groups,
                                   recipe.sketch_width, _step_key(state, SKETCH))),
        "grad/encoder_norm": single(norms.encoder),
        "grad/decoder_norm": single(norms.decoder),
        "grad/total_norm": single(norms.total),
    }
    if apart is not None:
        metrics["contrastive_loss"] = Mean(apart * whole.encoded, whole.encoded)
    return state.replace(params=params, opt=opt, buffers=buffers), stepped, forward, metrics


def original_update(recipe: Recipe, state: TrainState, batch: Batch,
                    draws: Draws) -> tuple[TrainState, Metrics, Forward]:
    """One batch of the original dynamics with given random numbers; `original_step` draws them."""
    model = nnx.merge(recipe.graph, state.params, state.buffers)
    assert state.carry is not None and draws.exploration is not None  # the original dynamics have both
    started = state.carry.halted
    carry = refill(state.carry, batch, model.decoder)
    encoded = started if recipe.mode.encode == "once" else jnp.ones_like(started)
    state, carry, forward, metrics = update(recipe, state, carry, encoded, draws)

    q_halt = forward.q[:, 0]
    halted = has_halted(carry.steps, q_halt, draws.exploration, model.decoder.arch)
    metrics |= solving_metrics(forward.rows, q_halt, halted)
    metrics["steps"] = mean_over(carry.steps, jnp.ones_like(halted))
    metrics["halted_steps"] = mean_over(carry.steps, halted)
    metrics["encoder_grad_rows"] = mean_over(encoded, jnp.ones_like(encoded))
    state = state.replace(carry=carry.replace(halted=halted), samples=state.samples + started.sum())
    return _finish(recipe, state, metrics), metrics, forward


def original_step(recipe: Recipe, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """One batch of the original dynamics: refill halted rows, one ACT step, one update, halt."""
    model = nnx.merge(recipe.graph, state.params, state.buffers)
    draws = draw(_step_key(state, DRAWS), model, batch, recipe)
    state, metrics, _ = original_update(recipe, state, batch, draws)
    return state, metrics


def online_update(recipe: Recipe, state: TrainState, batch: Batch,
                  draws: Draws) -> tuple[TrainState, Metrics, Forward]:
    """One batch of the online dynamics with given random numbers, whose leaves are stacked over ACT steps.

    The returned forward pass is stacked too. Metrics are sums over the ACT steps; `halted_*` are of the last.
    """
    model = nnx.merge(recipe.graph, state.params, state.buffers)
    carry = refill(empty_carry(model.decoder, batch), batch, model.decoder)
    encoded = jnp.ones_like(carry.halted)

    def body(loop: tuple[TrainState, Carry], draws: Draws) -> tuple[tuple[TrainState, Carry], tuple[Metrics, Forward]]:
        state, carry, forward, metrics = update(recipe, *loop, encoded, draws)
        last = carry.steps == recipe.mode.num_act_steps
        metrics |= solving_metrics(forward.rows, forward.q[:, 0], last)
        return (state, carry), (metrics, forward)

    (state, _), (metrics, forward) = jax.lax.scan(body, (state, carry), draws, length=recipe.mode.num_act_steps)
    metrics = jax.tree.map(lambda m: m.sum(axis=0), metrics)
    state = state.replace(samples=state.samples + len(batch.inputs))
    return _finish(recipe, state, metrics), metrics, forward


def online_step(recipe: Recipe, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """One batch of the online dynamics: a fresh carry, then `num_act_steps` ACT steps with an update each."""
    model = nnx.merge(recipe.graph, state.params, state.buffers)
    keys = jax.random.split(_step_key(state, DRAWS), recipe.mode.num_act_steps)
    draws = jax.vmap(lambda key: draw(key, model, batch, recipe))(keys)
    state, metrics, _ = online_update(recipe, state, batch, draws)
    return state, metrics


STEPS: dict[str, Callable[[Recipe, TrainState, Batch], tuple[TrainState, Metrics]]] = {
    "original": original_step,
    "online": online_step,
}


def _step_key(state: TrainState, stream: int) -> jax.Array:
    """The key of this batch for one of the two streams of random numbers."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.wrap_key_data(state.key), stream), state.step)


def _finish(recipe: Recipe, state: TrainState, metrics: Metrics) -> TrainState:
    """Closes a batch: learning rate and samples are logged, the moving average and the step count advance."""
    metrics["lr"] = single(recipe.optimiser.schedule(state.step + 1))
    metrics["samples"] = Mean(state.samples, jnp.ones(()))  # a whole number, exact
    ema = state.ema
    if ema is not None:
        ema = moving_average(ema, state.params, recipe.optimiser.config.ema_rate)
    return state.replace(ema=ema, step=state.step + 1)
