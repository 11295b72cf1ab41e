import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import golden, parity
from tools.torch_names import to_torch
from trm_jax.models.decoder import ArchConfig
from trm_jax.models.encoders import ENCODERS, Encoder, EncoderConfig
from trm_jax.models.encoders.latent import TaskLatent
from trm_jax.models.encoders.packing import encode_valid
from trm_jax.models.etrm import split

ARCH = ArchConfig(hidden_size=16, num_heads=2, expansion=1.0, L_layers=1, H_cycles=1, L_cycles=1, puzzle_emb_len=2,
                  pos_encodings="rope", mlp_t=False, forward_dtype="float32", halt_max_steps=1,
                  halt_exploration_prob=0.0)
B, K, S = 3, 4, 9


def make(kind, pooling_method="mean"):
    config = EncoderConfig(type=kind, num_layers=1, pooling_method=pooling_method, set_layers=1, norm_style="pre",
                           layer_scale_init=0.0, final_norm=True, max_demos=K)
    return Encoder(ARCH, config, nnx.Rngs(0))


def dense(encoder, demos, valid, eps):
    """Every slot encoded, then masked: what packing must equal."""
    vectors = encoder.grid_encoder(demos.reshape(-1, *demos.shape[2:])).reshape(*demos.shape[:2], -1)
    return encoder.contextualise(vectors * valid[..., None], valid, jnp.ones(len(demos), bool), eps)


def packed(encoder, demos, valid, eps):
    return encoder(demos, valid, eps=eps)


@pytest.mark.parity
@pytest.mark.parametrize("way", [packed, dense], ids=["packed", "dense"])
@pytest.mark.parametrize("case", parity.cases("B"), ids=str)
def test_context_latent_and_every_gradient(case, way):
    graph, params, buffers = golden.encoder(case)
    arrays = case.arrays
    demos = jnp.stack([arrays["demo_inputs"], arrays["demo_labels"]], axis=2)
    valid, R = jnp.asarray(arrays["demo_mask"]), jnp.asarray(arrays["R"])
    eps = jnp.asarray(arrays["eps"]) if "eps" in arrays else None

    def loss(params):
        context = way(nnx.merge(graph, params, buffers), demos, valid, eps)
        return (context.tokens * R).sum() + context.kl, context

    (value, context), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    check_context(case, "context" if eps is None else "train_context", context, "train_")
    np.testing.assert_allclose(value, arrays["grad_scalar"], rtol=0, atol=case.atol("grad_scalar", 1e-4))
    ours = to_torch({"encoder": grads})
    compared = 0
    for name, gradient in ours.items():
        expected = arrays[f"grad/{name.removeprefix('encoder.')}"]
        atol = max(case.atol(f"grad/{name.removeprefix('encoder.')}"), 1e-5 * np.abs(expected).max())
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=atol, err_msg=name)
        compared += 1
    assert compared == sum(key.startswith("grad/") for key in arrays)
    if eps is not None:
        context = way(nnx.merge(graph, params, buffers), demos, valid, None)
        check_context(case, "eval_context", context, "eval_")
    if "nodemo_context" in arrays:
        empty = way(nnx.merge(graph, params, buffers), jnp.zeros_like(demos[:1]), jnp.zeros_like(valid[:1]), None)
        np.testing.assert_allclose(empty.tokens[0], arrays["nodemo_context"], atol=case.atol("context", 1e-5))


def check_context(case, name, context, prefix):
    arrays = case.arrays
    np.testing.assert_allclose(context.tokens, arrays[name], rtol=0, atol=case.atol(name, 1e-5))
    if context.posterior is None:
        return
    np.testing.assert_allclose(context.kl, arrays[f"{prefix}kl"], rtol=0, atol=case.atol(f"{prefix}kl", 1e-5))
    for ours, recorded in ((context.posterior.mu, "mu"), (context.posterior.log_variance, "logvar")):
        if ours.ndim == 3:  # recorded as the mean over valid demonstrations
            weight = context.weight[..., None]
            ours = (ours * weight).sum(axis=1) / jnp.maximum(weight.sum(axis=1), 1)
        np.testing.assert_allclose(ours, arrays[f"{prefix}{recorded}"], rtol=0,
                                   atol=case.atol(f"{prefix}{recorded}", 1e-5))


@pytest.fixture(scope="module")
def demos():
    return jnp.asarray(np.random.default_rng(0).integers(0, 12, (B, K, 2, S)), jnp.uint8)


VALID = jnp.asarray([[1, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]], bool)


@pytest.mark.parametrize("kind", ENCODERS)
def test_properties(kind, demos):
    """Order does not matter, a padded slot changes nothing, no demonstration at all is finite, packed is dense."""
    encoder = make(kind)
    run = jax.jit(lambda demos, valid: encoder(demos, valid))
    context = run(demos, VALID)
    order = jnp.asarray([2, 0, 3, 1])
    np.testing.assert_allclose(run(demos[:, order], VALID[:, order]).tokens, context.tokens, atol=1e-5)
    other = jnp.where(VALID[..., None, None], demos, 7)
    np.testing.assert_array_equal(run(other, VALID).tokens, context.tokens)
    assert jnp.isfinite(context.tokens).all() and jnp.isfinite(context.kl)
    rng = np.random.default_rng(1)
    for valid in (VALID, jnp.ones_like(VALID), jnp.zeros_like(VALID), jnp.asarray(rng.random((B, K)) < 0.5)):
        reference = dense(encoder, demos, valid, None)
        packed_context = run(demos, valid)
        np.testing.assert_allclose(packed_context.tokens, reference.tokens, atol=1e-5)
        np.testing.assert_allclose(packed_context.kl, reference.kl, rtol=1e-5)


@pytest.mark.parametrize(("kind", "pooling"), [*((kind, "mean") for kind in ENCODERS), ("standard", "attention"),
                                               ("standard", "weighted")])
def test_gradients_are_finite_without_demonstrations(kind, pooling):
    graph, params, buffers = split(make(kind, pooling))

    def loss(params, valid):
        encoder = nnx.merge(graph, params, buffers)
        context = encoder(jnp.zeros((B, K, 2, S), jnp.uint8), valid)
        return jnp.square(context.tokens).sum() + context.kl

    gradient = jax.jit(jax.grad(loss))
    for valid in (VALID, jnp.zeros_like(VALID)):
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient(params, valid)))


@pytest.mark.parametrize("kind", ["hybrid_variational", "lpn_variational"])
def test_noise_is_explicit_and_moves_the_context(kind, demos):
    encoder = make(kind)
    eps = encoder.noise(jax.random.key(0), B, K)
    assert eps.shape == ((B, K, 16) if kind == "lpn_variational" else (B, 16))
    drawn, mean = encoder(demos, VALID, eps=eps), encoder(demos, VALID)
    assert float(jnp.abs(drawn.tokens - mean.tokens)[:2].max()) > 1e-3
    np.testing.assert_allclose(drawn.kl, mean.kl, rtol=1e-6)


def test_kl_counts_only_rows_that_are_encoded(demos):
    encoder = make("hybrid_variational")
    alone = encoder(demos[:1], VALID[:1]).kl
    chosen = encoder(demos, VALID, rows=jnp.asarray([True, False, False])).kl
    np.testing.assert_allclose(chosen, alone, rtol=1e-5)


def test_log_variance_of_a_task_latent_is_clamped():
    latent = TaskLatent(ARCH, nnx.Rngs(0))
    latent.logvar_proj.bias[...] = jnp.full((16,), 100.0)
    _, posterior = latent(jnp.ones((1, 2, 16)), None)
    assert (posterior.log_variance == 10).all()


def test_packing_runs_only_chunks_with_a_valid_slot():
    """40 slots in chunks of 3: an encoder that counts its calls on the host sees the valid ones only."""
    calls = []

    def encode(pairs):
        jax.debug.callback(lambda: calls.append(1))
        return pairs.reshape(len(pairs), -1).astype(jnp.float32)

    demos = jnp.arange(40 * 2 * 2, dtype=jnp.int32).reshape(10, 4, 2, 2)
    valid = jnp.zeros((10, 4), bool).at[3, 1].set(True).at[9, 3].set(True)
    out = jax.jit(lambda d, v: encode_valid(encode, d, v))(demos, valid)
    jax.effects_barrier()
    assert len(calls) == 1
    np.testing.assert_array_equal(out, demos.reshape(10, 4, 4) * valid[..., None])
