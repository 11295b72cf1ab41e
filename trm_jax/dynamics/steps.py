"""The two training dynamics: (TrainState, Batch) → (TrainState, Metrics), pure functions.

Both are made of one update: encode the rows that are to be encoded, take one ACT step, and follow its gradient.
Shapes: B rows, T context tokens, D hidden size.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx, struct

from trm_jax.dynamics.act import Batch, Carry, Exploration, empty_carry, explore, has_halted, refill
from trm_jax.dynamics.collapse import context_metrics
from trm_jax.dynamics.losses import LossConfig, RowLosses, row_losses, total_loss
from trm_jax.dynamics.metrics import Metrics, mean_over, single, solving_metrics
from trm_jax.dynamics.optim import AdamATan2State, Optimiser, moving_average
from trm_jax.dynamics.state import TrainState, Tree
from trm_jax.errors import ConfigError, check_choice
from trm_jax.models.encoders import Context, PerShard
from trm_jax.models.etrm import ETRM


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
    """What a step needs besides its arguments; all of it is static under jit."""

    graph: nnx.GraphDef
    mode: ModeConfig
    loss: LossConfig
    optimiser: Optimiser
    per_shard: PerShard = lambda f: f


class Draws(struct.PyTreeNode):
    """Random numbers of one update, at global shape, so that they do not depend on the device count.

    Attributes:
        exploration: halting rule, None in online mode.
        eps: noise of the latent, None for an encoder without one.
    """

    exploration: Exploration | None
    eps: jax.Array | None


def draw(key: jax.Array, model: ETRM, batch: Batch, mode: ModeConfig) -> Draws:
    """Draws the randomness of one update."""
    explore_key, noise_key = jax.random.split(key)
    rows, slots = batch.demo_mask.shape
    exploring = mode.name != "online"
    return Draws(explore(explore_key, rows, model.decoder.arch.halt_max_steps) if exploring else None,
                 model.encoder.noise(noise_key, rows, slots))


class Forward(struct.PyTreeNode):
    """What one ACT step computes besides its loss and the carry."""

    context: Context
    logits: jax.Array
    q: jax.Array
    rows: RowLosses


def act_step(model: ETRM, carry: Carry, encoded: jax.Array, eps: jax.Array | None, loss: LossConfig,
             per_shard: PerShard) -> tuple[jax.Array, tuple[Carry, Forward]]:
    """Loss and outcome of one ACT step on the carry's own data.

    Args:
        encoded: (B,) bool, rows whose context is encoded now, with gradient; the others read theirs in the carry.
    """
    batch = carry.batch
    context = model.encoder(batch.demos, batch.demo_mask, eps=eps, rows=encoded, per_shard=per_shard)
    kept = jax.lax.stop_gradient(carry.context)
    tokens = jnp.where(encoded[:, None, None], context.tokens.astype(kept.dtype), kept)
    z, logits, q = model.decoder(carry.z, batch.inputs, tokens)
    rows = row_losses(logits, q[:, 0], batch.labels, loss.type)
    carry = carry.replace(z=z, context=jax.lax.stop_gradient(tokens), steps=carry.steps + 1)
    return total_loss(rows, context.kl, loss.kl_weight), (carry, Forward(context, logits, q, rows))


def update(recipe: Recipe, state: TrainState, carry: Carry, encoded: jax.Array,
           eps: jax.Array | None) -> tuple[Tree, AdamATan2State, Carry, Forward, Metrics]:
    """One ACT step, its gradient, and one optimiser update of `state`'s parameters."""
    def loss_of(params: Tree) -> tuple[jax.Array, tuple[Carry, Forward]]:
        model = nnx.merge(recipe.graph, params, state.buffers)
        return act_step(model, carry, encoded, eps, recipe.loss, recipe.per_shard)

    (loss, (stepped, forward)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    params, opt, norms = recipe.optimiser.update(grads, state.opt, state.params, state.step, encoded.any())
    metrics = {
        "loss": single(loss),
        **context_metrics(forward.context, encoded, carry.batch.task),
        "grad/encoder_norm": single(norms.encoder),
        "grad/decoder_norm": single(norms.decoder),
        "grad/total_norm": single(norms.total),
    }
    return params, opt, stepped, forward, metrics


def original_update(recipe: Recipe, state: TrainState, batch: Batch,
                    draws: Draws) -> tuple[TrainState, Metrics, Forward]:
    """One batch of the original dynamics with given random numbers; `original_step` draws them."""
    model = nnx.merge(recipe.graph, state.params, state.buffers)
    assert state.carry is not None and draws.exploration is not None  # the original dynamics have both
    started = state.carry.halted
    carry = refill(state.carry, batch, model.decoder)
    encoded = started if recipe.mode.encode == "once" else jnp.ones_like(started)
    params, opt, carry, forward, metrics = update(recipe, state, carry, encoded, draws.eps)

    q_halt = forward.q[:, 0]
    halted = has_halted(carry.steps, q_halt, draws.exploration, model.decoder.arch)
    metrics |= solving_metrics(forward.rows, q_halt, halted)
    metrics["steps"] = mean_over(carry.steps, jnp.ones_like(halted))
    metrics["halted_steps"] = mean_over(carry.steps, halted)
    metrics["encoder_grad_rows"] = mean_over(encoded, jnp.ones_like(encoded))
    state = state.replace(params=params, opt=opt, carry=carry.replace(halted=halted),
                          samples=state.samples + started.sum())
    return _finish(recipe, state, metrics), metrics, forward


def original_step(recipe: Recipe, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """One batch of the original dynamics: refill halted rows, one ACT step, one update, halt."""
    model = nnx.merge(recipe.graph, state.params, state.buffers)
    draws = draw(_step_key(state), model, batch, recipe.mode)
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

    def body(loop: tuple[Tree, AdamATan2State, Carry],
             draws: Draws) -> tuple[tuple[Tree, AdamATan2State, Carry], tuple[Metrics, Forward]]:
        params, opt, carry = loop
        params, opt, carry, forward, metrics = update(recipe, state.replace(params=params, opt=opt), carry,
                                                      encoded, draws.eps)
        last = carry.steps == recipe.mode.num_act_steps
        metrics |= solving_metrics(forward.rows, forward.q[:, 0], last)
        return (params, opt, carry), (metrics, forward)

    loop, (metrics, forward) = jax.lax.scan(body, (state.params, state.opt, carry), draws,
                                            length=recipe.mode.num_act_steps)
    metrics = jax.tree.map(lambda m: m.sum(axis=0), metrics)
    state = state.replace(params=loop[0], opt=loop[1], samples=state.samples + len(batch.inputs))
    return _finish(recipe, state, metrics), metrics, forward


def online_step(recipe: Recipe, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """One batch of the online dynamics: a fresh carry, then `num_act_steps` ACT steps with an update each."""
    model = nnx.merge(recipe.graph, state.params, state.buffers)
    keys = jax.random.split(_step_key(state), recipe.mode.num_act_steps)
    draws = jax.vmap(lambda key: draw(key, model, batch, recipe.mode))(keys)
    state, metrics, _ = online_update(recipe, state, batch, draws)
    return state, metrics


STEPS: dict[str, Callable[[Recipe, TrainState, Batch], tuple[TrainState, Metrics]]] = {
    "original": original_step,
    "online": online_step,
}


def _step_key(state: TrainState) -> jax.Array:
    return jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)


def _finish(recipe: Recipe, state: TrainState, metrics: Metrics) -> TrainState:
    """Closes a batch: learning rate and samples are logged, the moving average and the step count advance."""
    metrics["lr"] = single(recipe.optimiser.schedule(state.step + 1))
    metrics["samples"] = single(state.samples)
    ema = state.ema
    if ema is not None:
        ema = moving_average(ema, state.params, recipe.optimiser.config.ema_rate)
    return state.replace(ema=ema, step=state.step + 1)
