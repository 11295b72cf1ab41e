"""AdamATan2, its schedule, clipping, freezing and the exponential moving average.

Parameters belong to groups by their path. In an update each group has its own learning rate, and a group that is
not active (frozen, or without gradient) stands still entirely: parameters, moments and step counts.
"""

import dataclasses
import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from trm_jax.dynamics.table import update_rows
from trm_jax.errors import ConfigError, check_numbers

Tree = Any
GROUPS: tuple[tuple[str, str], ...] = ((r"encoder/.*", "encoder"), (r"decoder/.*", "decoder"))
CLIP_EPS = 1e-6


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The `optim` section; configs/base.py says what each field means."""

    lr: float
    lr_min_ratio: float
    lr_warmup_steps: int
    weight_decay: float
    beta1: float
    beta2: float
    grad_clip_norm: float
    ema: bool
    ema_rate: float
    encoder_lr_scale: float
    freeze_encoder_steps: int
    freeze_decoder_steps: int
    embedding_lr: float
    embedding_weight_decay: float

    def __post_init__(self) -> None:
        check_numbers("optim", self, ["lr", "grad_clip_norm", "embedding_lr"], above=0)
        check_numbers("optim", self, ["beta1", "beta2", "ema_rate"], at_least=0, below=1)
        check_numbers("optim", self, ["lr_min_ratio"], at_least=0, at_most=1)
        check_numbers("optim", self, ["weight_decay", "embedding_weight_decay"], at_least=0)
        check_numbers("optim", self, ["lr_warmup_steps", "freeze_encoder_steps", "freeze_decoder_steps"], at_least=0,
                      below=2**31)  # with which the step, an int32, is compared
        check_numbers("optim", self, ["encoder_lr_scale"], above=0)  # freeze_encoder_steps is what stops an encoder


def group_labels(params: Tree, groups: tuple[tuple[str, str], ...] = GROUPS) -> Tree:
    """The group of every parameter: that of the first pattern which matches its path.

    Raises:
        ConfigError: a parameter matches no pattern.
    """
    def label(path: Any, _: Any) -> str:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, group in groups:
            if re.fullmatch(pattern, name):
                return group
        raise ConfigError(f"parameter {name} belongs to no optimiser group; patterns: {[p for p, _ in groups]}")

    return jax.tree_util.tree_map_with_path(label, params)


class AdamATan2State(NamedTuple):
    """`count` holds each tensor's own number of updates, `mu` and `nu` its moments."""

    count: Tree
    mu: Tree
    nu: Tree


def scale_by_adam_atan2(b1: float, b2: float) -> optax.GradientTransformation:
    """Adam's direction with atan2 in place of the division (Everett et al. 2024, without scale constants).

        m, v as in Adam;  g ← atan2(m, √v / √(1 − β₂ᵗ)) / (1 − β₁ᵗ)
    """
    def init(params: Tree) -> AdamATan2State:
        return AdamATan2State(
            count=jax.tree.map(lambda p: jnp.zeros((), jnp.int32), params),
            mu=jax.tree.map(jnp.zeros_like, params),
            nu=jax.tree.map(jnp.zeros_like, params),
        )

    def direction(t: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
        # expm1 keeps 1 − βᵗ exact while βᵗ is close to one.
        correction1 = -jnp.expm1(t * math.log(b1)) if b1 > 0 else 1.0
        correction2 = -jnp.expm1(t * math.log(b2)) if b2 > 0 else 1.0
        return jnp.arctan2(m, jnp.sqrt(v) / jnp.sqrt(correction2)) / correction1

    def update(grads: Tree, state: AdamATan2State, params: Tree | None = None) -> tuple[Tree, AdamATan2State]:
        new = AdamATan2State(
            count=jax.tree.map(lambda t: t + 1, state.count),
            mu=jax.tree.map(lambda m, g: m + (1 - b1) * (g - m), state.mu, grads),
            nu=jax.tree.map(lambda v, g: v + (1 - b2) * (jnp.square(g) - v), state.nu, grads),
        )
        return jax.tree.map(direction, *new), new

    return optax.GradientTransformation(init, update)


def adam_atan2(b1: float, b2: float, weight_decay: float) -> optax.GradientTransformationExtraArgs:
    """AdamATan2 with decoupled weight decay, p ← p − lr · (wd · p + direction), whose tensors may stand still.

    `update` takes two more arguments, trees of the parameters' structure: `learning_rate`, and `active`, bools;
    a tensor that is not active stands still, and its t does not advance.
    """
    inner = scale_by_adam_atan2(b1, b2)

    def update(grads: Tree, state: AdamATan2State, params: Tree, *, learning_rate: Tree,
               active: Tree) -> tuple[Tree, AdamATan2State]:
        def where_active(new: Tree, old: Tree) -> Tree:
            return jax.tree.map(jnp.where, active, new, old)

        direction, new = inner.update(grads, state)
        steps = jax.tree.map(lambda lr, p, d: -lr * (weight_decay * p + d), learning_rate, params, direction)
        return where_active(steps, jax.tree.map(jnp.zeros_like, params)), AdamATan2State(*map(where_active, new, state))

    return optax.GradientTransformationExtraArgs(inner.init, update)


def learning_rate(config: OptimConfig, total_steps: int) -> optax.Schedule:
    """Linear warm-up from 0, then half a cosine down to `lr_min_ratio`·lr, where it stays.

    The first update is step 1, as in the PyTorch trainers.
    """
    warmup = optax.linear_schedule(0.0, config.lr, max(config.lr_warmup_steps, 1))
    decay = optax.cosine_decay_schedule(config.lr, max(total_steps - config.lr_warmup_steps, 1), config.lr_min_ratio)
    return optax.join_schedules([warmup, decay], [config.lr_warmup_steps])


class GradNorms(NamedTuple):
    """Global L2 norms before clipping."""

    encoder: jax.Array
    decoder: jax.Array
    total: jax.Array


class Optimiser:
    """AdamATan2 over the two groups `encoder` and `decoder` of one parameter tree."""

    def __init__(self, config: OptimConfig, total_steps: int):
        self.config = config
        self.schedule = learning_rate(config, total_steps)
        self.transform = adam_atan2(config.beta1, config.beta2, config.weight_decay)

    def init(self, params: Tree) -> AdamATan2State:
        """Optimiser state for `params`."""
        group_labels(params)  # an unmatched parameter is an error at the start, not in the middle of a run
        return self.transform.init(params)

    def update_table(self, table: jax.Array, row: jax.Array, grads: jax.Array, step: jax.Array) -> jax.Array:
        """The embedding table after a batch that looked up `row` (B,); see `table.update_rows`.

        Its rate follows the schedule of all others; it is frozen where an encoder would be, and never clipped.
        """
        config = self.config
        rate = self.schedule(step + 1) * (config.embedding_lr / config.lr)
        rate = jnp.where(step >= config.freeze_encoder_steps, rate, 0.0)
        return update_rows(table, row, grads, rate, config.embedding_weight_decay)

    def update(self, grads: Tree, state: AdamATan2State, params: Tree, step: jax.Array,
               encoded: jax.Array) -> tuple[Tree, AdamATan2State, GradNorms]:
        """One update with gradients that are already means over the global batch.

        Args:
            step: batches finished before this one; it sets the learning rate and ends the freezing.
            encoded: bool, some row sent gradient to the encoder.

        Returns:
            New parameters, new state, and the gradient's norms before clipping.
        """
        config = self.config
        labels = group_labels(params)
        active = {"encoder": encoded & (step >= config.freeze_encoder_steps),
                  "decoder": step >= config.freeze_decoder_steps}
        lr = self.schedule(step + 1)
        rates = {"encoder": lr * config.encoder_lr_scale, "decoder": lr}

        square = {group: sum(jnp.sum(jnp.square(g)) for g, label in zip(
            jax.tree.leaves(grads), jax.tree.leaves(labels), strict=True) if label == group) for group in active}
        norms = GradNorms(jnp.sqrt(square["encoder"]), jnp.sqrt(square["decoder"]),
                          jnp.sqrt(square["encoder"] + square["decoder"]))
        clipped = jnp.sqrt(sum(jnp.where(active[group], square[group], 0.0) for group in active))
        scale = jnp.minimum(1.0, config.grad_clip_norm / (clipped + CLIP_EPS))

        updates, state = self.transform.update(
            jax.tree.map(lambda g: g * scale, grads), state, params,
            learning_rate=jax.tree.map(rates.get, labels), active=jax.tree.map(active.get, labels))
        return optax.apply_updates(params, updates), state, norms


def moving_average(ema: Tree, params: Tree, rate: float) -> Tree:
    """rate · ema + (1 − rate) · params, without bias correction."""
    return optax.incremental_update(params, ema, 1.0 - rate)
