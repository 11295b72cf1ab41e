import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import parity
from trm_jax.dynamics.optim import (
    OptimConfig,
    Optimiser,
    adam_atan2,
    group_labels,
    learning_rate,
    moving_average,
    scale_by_adam_atan2,
)
from trm_jax.errors import ConfigError

CONFIG = OptimConfig(lr=1e-2, lr_min_ratio=1.0, lr_warmup_steps=0, weight_decay=0.1, beta1=0.9, beta2=0.95,
                     grad_clip_norm=1.0, ema=True, ema_rate=0.999, encoder_lr_scale=0.5, freeze_encoder_steps=0,
                     freeze_decoder_steps=0, embedding_lr=1e-2, embedding_weight_decay=0.1)


@pytest.mark.parity
@pytest.mark.parametrize("case", parity.cases("E", "adam_atan2"), ids=str)
def test_adam_atan2(case):
    arrays, names = case.arrays, case.info["tensor_names"]
    for run, hyper in case.info["hyperparameters"].items():
        params = {name: jnp.asarray(arrays[f"param0/{name}"]) for name in names}
        transform = adam_atan2(*hyper["betas"], hyper["weight_decay"])
        state = transform.init(params)
        rates = dict.fromkeys(names, hyper["lr"])
        update = jax.jit(transform.update)
        for t, present in enumerate(arrays["grad_present"]):
            grads = {name: jnp.asarray(arrays[f"grad/{name}"][t]) for name in names}
            active = dict(zip(names, map(bool, present), strict=True))
            updates, state = update(grads, state, params, learning_rate=rates, active=active)
            params = {name: params[name] + updates[name] for name in names}
            for name in names:
                expected = arrays[f"{run}/param/{name}"][t]
                np.testing.assert_allclose(params[name], expected, rtol=0, atol=2e-6, err_msg=f"{run} {name} {t}")
                for moment, tree in (("exp_avg", state.mu), ("exp_avg_sq", state.nu)):
                    expected = arrays[f"{run}/{moment}/{name}"][t]
                    np.testing.assert_allclose(tree[name], expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parity
@pytest.mark.parametrize("case", parity.cases("E", "lr_schedule"), ids=str)
def test_learning_rate(case):
    for i, config in enumerate(case.info["configs"]):
        if config.get("num_cycles", 0.5) != 0.5:
            continue  # ours is half a cosine
        schedule = jax.jit(learning_rate(
            dataclasses.replace(CONFIG, lr=config["base_lr"], lr_min_ratio=config["min_ratio"],
                                lr_warmup_steps=config["num_warmup_steps"]), config["num_training_steps"]))
        steps, rates = case.arrays[f"config{i}/step"], case.arrays[f"config{i}/lr"]
        for step, rate in zip(steps, rates, strict=True):
            if step <= config["num_training_steps"]:
                np.testing.assert_allclose(schedule(jnp.asarray(step)), rate, rtol=1e-6, atol=1e-6 * config["base_lr"])


def test_learning_rate_stays_at_its_end():
    schedule = jax.jit(learning_rate(dataclasses.replace(CONFIG, lr_min_ratio=0.1), 50))
    assert schedule(jnp.asarray(500)) == pytest.approx(1e-3)


@pytest.mark.parity
@pytest.mark.parametrize("case", parity.cases("E", "ema"), ids=str)
def test_moving_average(case):
    for prefix in {key.split("/")[0] for key in case.arrays}:
        names = [key.split("/")[2] for key in case.arrays if key.startswith(f"{prefix}/shadow/")]
        for name in names:
            ema = jnp.asarray(case.arrays[f"{prefix}/initial/{name}"])
            for value, shadow in zip(case.arrays[f"{prefix}/value/{name}"], case.arrays[f"{prefix}/shadow/{name}"],
                                     strict=True):
                ema = moving_average(ema, jnp.asarray(value), float(prefix.removeprefix("mu")))
                np.testing.assert_allclose(ema, shadow, rtol=0, atol=1e-6)


def small_params():
    return {"encoder": {"a": jnp.ones((2, 3))}, "decoder": {"b": jnp.full((4,), 2.0)}}


def bits(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf).tobytes(), tree)


def test_its_direction_is_a_link_of_a_chain_like_any_other():
    """With decay and learning rate of optax, it makes the same updates."""
    whole = adam_atan2(0.9, 0.95, 0.1)
    chain = optax.chain(scale_by_adam_atan2(0.9, 0.95), optax.add_decayed_weights(0.1),
                        optax.scale_by_learning_rate(1e-2))
    params = small_params()
    states, key = [whole.init(params), chain.init(params)], jax.random.key(0)
    for step in range(3):
        grads = jax.tree.map(lambda p, step=step: jax.random.normal(jax.random.fold_in(key, step), p.shape), params)
        rates, active = (jax.tree.map(lambda _, value=value: value, params) for value in (1e-2, True))
        ours, states[0] = whole.update(grads, states[0], params, learning_rate=rates, active=active)
        links, states[1] = chain.update(grads, states[1], params)
        assert bits(ours) == bits(links)
        params = optax.apply_updates(params, ours)


@pytest.mark.parametrize("group", ["encoder", "decoder"])
def test_a_frozen_group_stands_still_entirely(group):
    optimiser = Optimiser(dataclasses.replace(CONFIG, **{f"freeze_{group}_steps": 2}), 100)
    params = small_params()
    state = optimiser.init(params)
    grads = jax.tree.map(jnp.ones_like, params)
    other = {"encoder": "decoder", "decoder": "encoder"}[group]
    for step in range(3):
        new, new_state, _ = optimiser.update(grads, state, params, jnp.asarray(step), jnp.asarray(True))
        still = bits(new[group]) == bits(params[group]) and all(
            bits(getattr(new_state, part)[group]) == bits(getattr(state, part)[group]) for part in state._fields)
        assert still == (step < 2)
        assert bits(new[other]) != bits(params[other])
        params, state = new, new_state


def test_an_encoder_without_gradient_stands_still():
    optimiser = Optimiser(CONFIG, 100)
    params = small_params()
    grads = jax.tree.map(jnp.ones_like, params)
    new, state, _ = optimiser.update(grads, optimiser.init(params), params, jnp.asarray(0), jnp.asarray(False))
    assert bits(new["encoder"]) == bits(params["encoder"])
    assert int(state.count["encoder"]["a"]) == 0 and int(state.count["decoder"]["b"]) == 1


def test_the_encoder_has_its_own_learning_rate_and_norms_are_before_clipping():
    optimiser = Optimiser(dataclasses.replace(CONFIG, weight_decay=0.0), 100)
    params = small_params()
    grads = jax.tree.map(lambda p: jnp.full_like(p, 10.0), params)
    new, _, norms = optimiser.update(grads, optimiser.init(params), params, jnp.asarray(0), jnp.asarray(True))
    moved = {group: np.abs(np.subtract(*(jax.tree.leaves(tree[group])[0] for tree in (new, params)))).max()
             for group in new}
    assert moved["encoder"] == pytest.approx(0.5 * moved["decoder"], rel=1e-4)
    assert norms.encoder == pytest.approx(10 * 6**0.5) and norms.total == pytest.approx(10 * 10**0.5)


def test_clipping_scales_by_the_global_norm():
    """The first moment shows the clipped gradient: m = (1 − β₁) g."""
    optimiser = Optimiser(CONFIG, 100)
    params = small_params()
    grads = jax.tree.map(lambda p: jnp.full_like(p, 10.0), params)
    _, state, norms = optimiser.update(grads, optimiser.init(params), params, jnp.asarray(0), jnp.asarray(True))
    np.testing.assert_allclose(state.mu["decoder"]["b"], 0.1 * 10.0 / norms.total, rtol=1e-5)


def test_a_parameter_of_no_group_is_an_error():
    with pytest.raises(ConfigError, match="stray"):
        group_labels({"encoder": {"a": jnp.ones(1)}, "stray": jnp.ones(1)})
