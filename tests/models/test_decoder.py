import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import golden, parity
from tests.filled import filled
from tools.torch_names import to_torch
from trm_jax.models.decoder import ArchConfig, Decoder
from trm_jax.models.etrm import split
from trm_jax.models.layers import parameter_keys
from trm_jax.models.remat import REMAT

SMALL = ArchConfig(hidden_size=16, num_heads=2, expansion=1.0, L_layers=1, H_cycles=2, L_cycles=2, puzzle_emb_len=2,
                   pos_encodings="rope", mlp_t=False, forward_dtype="float32", attention="xla", remat="none",
                   halt_max_steps=4, halt_exploration_prob=0.5)


def close(case, name, actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=case.atol(name, 1e-5), err_msg=name)


@functools.cache
def act_step(case):
    """The model of a case, and its decoder's step under jit."""
    model = golden.trm(case)
    return model, jax.jit(lambda z, tokens, context: model.decoder(z, tokens, context))


@pytest.mark.parity
@pytest.mark.parametrize("mode", ["embedding", "encoder"])
@pytest.mark.parametrize("case", parity.cases("A"), ids=str)
def test_act_steps(case, mode):
    """Logits, q values and states of all recorded ACT steps, with the context of a puzzle embedding or another."""
    whole, step = act_step(case)
    model = whole.decoder
    arrays, tokens = case.arrays, jnp.asarray(case.arrays["inputs"])
    context = jnp.asarray(arrays["context"])
    if mode == "embedding":
        entries = whole.encoder.entries(jnp.asarray(arrays["puzzle_identifiers"]))
        context = whole.encoder(None, None, entries=entries).tokens
        np.testing.assert_array_equal(context, arrays["context_from_puzzle_emb"])
    prefix = "" if mode == "embedding" else "enc_"
    z = model.initial(len(tokens))
    if mode == "embedding":
        close(case, "z_H_init", z.z_H, arrays["z_H_init"])
        close(case, "input_embeddings", model.embed(tokens, context), arrays["input_embeddings"])
    for i in range(case.info["act_steps"]):
        z, logits, q = step(z, tokens, context)
        close(case, f"{prefix}logits", logits, arrays[f"{prefix}logits"][i])
        close(case, f"{prefix}q_halt_logits", q[:, 0], arrays[f"{prefix}q_halt_logits"][i])
        close(case, f"{prefix}q_continue_logits", q[:, 1], arrays[f"{prefix}q_continue_logits"][i])
        if mode == "embedding":
            close(case, "z_H", z.z_H, arrays["z_H"][i])
            close(case, "z_L", z.z_L, arrays["z_L"][i])
    if mode == "encoder":
        close(case, "enc_z_H_last", z.z_H, arrays["enc_z_H_last"])
        close(case, "enc_z_L_last", z.z_L, arrays["enc_z_L_last"])


@pytest.mark.parity
@pytest.mark.parametrize("case", parity.cases("A"), ids=str)
def test_gradients_of_the_second_act_step(case):
    graph, params, buffers = golden.decoder(case)
    arrays = case.arrays
    tokens = jnp.asarray(arrays["inputs"])

    def scalar(params, context):
        model = nnx.merge(graph, params, buffers)
        z, _, _ = model(model.initial(len(tokens)), tokens, context)
        _, logits, q = model(z, tokens, context)
        return ((logits * arrays["R_logits"]).sum() + (q[:, 0] * arrays["R_q_halt"]).sum()
                + (q[:, 1] * arrays["R_q_continue"]).sum())

    context = jnp.asarray(arrays["context"])
    value, (grads, context_grad) = jax.jit(jax.value_and_grad(scalar, (0, 1)))(params, context)
    close(case, "enc_grad_scalar", value, arrays["enc_grad_scalar"])
    close(case, "enc_grad/context", context_grad, arrays["enc_grad/context"])
    ours = to_torch({"decoder": grads})
    for key, expected in arrays.items():
        if key.startswith("enc_gradnorm/"):
            name = "inner." + key.removeprefix("enc_gradnorm/").removeprefix("inner.")
            np.testing.assert_allclose(np.linalg.norm(ours[name]), expected, rtol=1e-4, err_msg=key)
        elif key.startswith("enc_grad/") and key != "enc_grad/context":
            name = "inner." + key.removeprefix("enc_grad/").removeprefix("inner.")
            close(case, key, ours[name], expected)


def made(**changes):
    """A decoder of half the usual weights, as in golden cases: a recursion multiplies the rounding of each program."""
    return filled(lambda: Decoder(dataclasses.replace(SMALL, **changes), 4, parameter_keys(0)), 0.5)


def test_only_the_last_h_cycle_carries_gradient():
    """With a state gradient-free at the last cycle, more H-cycles in front change the value, not the program of
    the gradient: d loss / d context of three cycles equals that of one cycle started from the second's state."""
    tokens, context = jnp.ones((1, 4), jnp.uint8), jnp.ones((1, 2, 16))
    three, two, one = (made(H_cycles=cycles) for cycles in (3, 2, 1))
    start = three.initial(1)
    middle, _, _ = jax.jit(lambda z, c: two(z, tokens, c))(start, context)
    of_three = jax.jit(jax.grad(lambda c: three(start, tokens, c)[1].sum()))(context)
    of_one = jax.jit(jax.grad(lambda c: one(middle, tokens, c)[1].sum()))(context)
    np.testing.assert_allclose(of_three, of_one, rtol=1e-5, atol=1e-6)
    assert np.abs(of_three).max() > 0


def test_compiled_program_does_not_grow_with_cycles():
    def size(cycles):
        model = made(H_cycles=cycles, L_cycles=cycles)
        step = jax.jit(lambda z: model(z, jnp.ones((1, 4), jnp.uint8), jnp.ones((1, 2, 16)))[1])
        return len(step.lower(model.initial(1)).as_text().splitlines())

    assert size(7) == size(3)


def test_initial_statistics():
    """σ = 1/√fan_in truncated at ±2σ; q head zero with bias −5; buffers are no parameters."""
    model = Decoder(dataclasses.replace(SMALL, hidden_size=128, num_heads=4), 4, parameter_keys(0))
    _, params, buffers = split(model)
    kernel = params["L_level"]["layers"][0]["mixer"]["qkv_proj"]["kernel"]
    assert float(kernel.std()) == pytest.approx(128**-0.5, rel=0.02)
    assert np.abs(kernel).max() <= 2 * 128**-0.5 / 0.8796
    assert float(params["embed_tokens"]["embedding"].std()) == pytest.approx(128**-0.5, rel=0.05)
    assert not params["q_head"]["kernel"].any() and (params["q_head"]["bias"] == -5).all()
    assert set(buffers) == {"H_init", "L_init"}


def test_bfloat16_activations_stay_close_to_float32():
    tokens, context = jnp.ones((1, 4), jnp.uint8), jnp.ones((1, 2, 16)) * 0.1
    full, half = made(), made(forward_dtype="bfloat16")
    z, logits, q = jax.jit(lambda: half(half.initial(1), tokens, context))()
    assert z.z_H.dtype == jnp.bfloat16 and logits.dtype == q.dtype == jnp.float32
    np.testing.assert_allclose(logits, jax.jit(lambda: full(full.initial(1), tokens, context)[1])(), atol=0.15)


def test_remat_changes_no_gradient_and_keeps_less():
    rng = np.random.default_rng(0)
    tokens, context = rng.integers(0, 12, (2, 4), np.int32), rng.normal(size=(2, 2, 16)).astype(np.float32)
    R = jnp.asarray(rng.normal(size=(2, 4, 12)), jnp.float32)
    found, kept = {}, {}
    for how in REMAT:
        graph, params, buffers = split(made(remat=how, attention="blocked"))

        def loss(params, context, graph=graph, buffers=buffers):
            model = nnx.merge(graph, params, buffers)
            return (model(model.initial(2), tokens, context)[1] * R).sum()

        found[how] = jax.jit(jax.value_and_grad(loss, (0, 1)))(params, context)
        residuals = jax.eval_shape(lambda p, c, loss=loss: jax.vjp(loss, p, c)[1], params, context)
        kept[how] = sum(leaf.size for leaf in jax.tree.leaves(residuals))
    for how in ("dots", "full"):
        jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(
            ours, theirs, rtol=0, atol=1e-5 * max(1.0, float(np.abs(theirs).max()))), found[how], found["none"])
    assert kept["none"] > kept["dots"] > kept["full"]


def test_products_and_attention_are_not_computed_twice_where_they_are_kept():
    """Matrix products, by their number in the program: forward and two a product backward, and one pass of attention
    more, which its gradient makes itself."""
    def products(how):
        graph, params, buffers = split(made(remat=how, attention="blocked", H_cycles=1))

        def loss(params):
            model = nnx.merge(graph, params, buffers)
            return model(model.initial(2), jnp.ones((2, 4), jnp.int32), jnp.ones((2, 2, 16)))[1].sum()

        return jax.jit(jax.grad(loss)).lower(params).as_text().count("dot_general")

    assert products("dots") == products("none") < products("full")
