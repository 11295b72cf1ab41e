import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import golden, parity
from tests.filled import filled
from tools.torch_names import to_torch
from trm_jax.models.decoder import ArchConfig
from trm_jax.models.encoders import ENCODERS, Encoder, EncoderConfig, packing
from trm_jax.models.encoders.grid import POOLINGS
from trm_jax.models.encoders.latent import TaskLatent
from trm_jax.models.encoders.packing import chunk_size, encode_valid
from trm_jax.models.etrm import split
from trm_jax.models.layers import parameter_keys
from trm_jax.run.mesh import data_mesh, summed_over_rows

ARCH = ArchConfig(hidden_size=16, num_heads=2, expansion=1.0, L_layers=1, H_cycles=1, L_cycles=1, puzzle_emb_len=2,
                  pos_encodings="rope", mlp_t=False, forward_dtype="float32", attention="xla", remat="none",
                  halt_max_steps=1, halt_exploration_prob=0.0)
B, K, S = 4, 4, 9
# Every part occurs in these: the others are the same without the latent, for which the golden cases stand.
KINDS = [name for name, parts in ENCODERS.items() if parts.latent or not any(
    other.latent and (other.grid, other.aggregate) == (parts.grid, parts.aggregate) for other in ENCODERS.values())]


@functools.cache
def make(kind):
    config = EncoderConfig(type=kind, num_layers=1, pooling_method="mean", set_layers=1, norm_style="pre",
                           layer_scale_init=0.0, final_norm=True, embedding_width=0, max_demos=K)
    return filled(lambda: Encoder(ARCH, config, parameter_keys(0)))


class Encoded(NamedTuple):
    tokens: jax.Array
    kl: jax.Array


@functools.cache
def encode(kind):
    """Jitted (demos, mask, noise, rows) → what the context holds."""
    def run(demos, valid, eps=None, rows=None):
        context = make(kind)(demos, valid, rows=rows, eps=eps)
        return Encoded(context.tokens, context.kl)

    return jax.jit(run)


def noise(kind):
    """Of the encoder's latent, drawn by NumPy; None without one."""
    shape = jax.eval_shape(lambda: make(kind).noise(jax.random.key(0), B, K))
    return shape and np.random.default_rng(3).normal(size=shape.shape).astype(np.float32)


def dense(encoder, demos, valid, eps):
    """Every slot encoded, then masked: what packing must equal."""
    vectors = encoder.grid_encoder(demos.reshape(-1, *demos.shape[2:])).reshape(*demos.shape[:2], -1)
    return encoder.contextualise(vectors * valid[..., None], valid, jnp.ones(len(demos), bool), eps)


def packed(encoder, demos, valid, eps):
    return encoder(demos, valid, eps=eps)


@pytest.mark.parity
@pytest.mark.parametrize("case", parity.cases("B"), ids=str)
def test_context_latent_and_every_gradient(case):
    graph, params, buffers = golden.encoder(case)
    arrays = case.arrays
    demos = jnp.asarray(np.stack([arrays["demo_inputs"], arrays["demo_labels"]], axis=2))
    valid, R = jnp.asarray(arrays["demo_mask"]), jnp.asarray(arrays["R"])
    eps = jnp.asarray(arrays["eps"]) if "eps" in arrays else None

    def loss(params, demos, valid):
        context = packed(nnx.merge(graph, params, buffers), demos, valid, eps)
        return (context.tokens * R).sum() + context.kl, context

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, context), grads = run(params, demos, valid)
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
    if eps is None:  # it answers as it trains
        def answer(demos, valid):
            return run(params, demos, valid)[0][1]
    else:
        answer = jax.jit(lambda demos, valid: packed(nnx.merge(graph, params, buffers), demos, valid, None))
        check_context(case, "eval_context", answer(demos, valid), "eval_")
    if "nodemo_context" in arrays:
        empty = answer(np.zeros_like(demos), np.zeros_like(valid))
        np.testing.assert_allclose(empty.tokens[0], arrays["nodemo_context"], atol=case.atol("context", 1e-5))


def check_context(case, name, context, prefix):
    arrays = case.arrays
    np.testing.assert_allclose(context.tokens, arrays[name], rtol=0, atol=case.atol(name, 1e-5))
    if context.posterior is None:
        return
    np.testing.assert_allclose(context.kl, arrays[f"{prefix}kl"], rtol=0, atol=case.atol(f"{prefix}kl", 1e-5))
    for ours, recorded in ((context.posterior.mu, "mu"), (context.posterior.log_variance, "logvar")):
        ours = np.asarray(ours)
        if ours.ndim == 3:  # recorded as the mean over valid demonstrations
            weight = np.asarray(context.weight)[..., None]
            ours = (ours * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1)
        np.testing.assert_allclose(ours, arrays[f"{prefix}{recorded}"], rtol=0,
                                   atol=case.atol(f"{prefix}{recorded}", 1e-5))


@pytest.fixture(scope="module")
def demos():
    return np.random.default_rng(0).integers(0, 12, (B, K, 2, S), np.uint8)


VALID = np.asarray([[1, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
# Random masks and the two extremes: every slot of every row, and none.
MASKS = [*(np.random.default_rng(seed).random((B, K)) < share for seed, share in enumerate((0.1, 0.3, 0.5, 0.7, 0.9))),
         np.ones((B, K), bool), np.zeros((B, K), bool), VALID]


R = np.random.default_rng(2).normal(size=(B, ARCH.puzzle_emb_len, 16)).astype(np.float32)


@functools.cache
def gradients(kind, way):
    """Jitted (parameters, demos, mask, noise, R) → ((loss, context), gradients); and the parameters."""
    graph, params, buffers = split(make(kind))

    def loss(params, demos, valid, eps, R):
        context = way(nnx.merge(graph, params, buffers), demos, valid, eps)
        return (context.tokens * R).sum() + context.kl, context

    return jax.jit(jax.value_and_grad(loss, has_aux=True)), params


def assert_same(ours, theirs, atol=1e-5):
    (value, context), grads = ours
    (expected_value, expected_context), expected_grads = theirs
    np.testing.assert_allclose(value, expected_value, rtol=1e-5, atol=atol)
    np.testing.assert_allclose(context.tokens, expected_context.tokens, rtol=0, atol=atol)
    for ours, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol * max(1.0, float(np.abs(theirs).max())))


@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_dense_with_every_gradient(kind, demos):
    """For random masks, all slots, none, and PAD throughout, with the latent's noise."""
    (run, params), (reference, _), eps = gradients(kind, packed), gradients(kind, dense), noise(kind)
    for pairs, valid in [*((demos, mask) for mask in MASKS), (np.zeros_like(demos), VALID)]:
        found = run(params, pairs, valid, eps, R)
        assert_same(found, reference(params, pairs, valid, eps, R))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("kind", ["hybrid_variational", "lpn_variational"])
def test_packing_by_device_equals_packing_at_once(kind, demos):
    """Four devices of one row each: one without any demonstration, one full; the KL is a mean over all of them."""
    graph, params, buffers = split(make(kind))
    units = make(kind).latent_units(VALID, np.ones(B, bool)).sum()

    def gradient(params, demos, valid, eps, R):
        def loss(params):
            context = nnx.merge(graph, params, buffers)(demos, valid, eps=eps)
            return (context.tokens * R).sum() + context.kl_share(units), context

        (value, context), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return (value, grads), (), context

    given = params, demos, VALID, noise(kind), R
    (value, grads), _, context = jax.jit(summed_over_rows(data_mesh(jax.devices()[:B]))(gradient))(*given)
    assert_same(((value, context), grads), gradients(kind, packed)[0](*given))


@pytest.mark.parametrize("kind", KINDS)
def test_neither_order_nor_padded_slots_matter(kind, demos):
    """Any order of the slots, anything in the slots that hold nothing, and any number of them more."""
    eps, run = noise(kind), encode(kind)
    by_slot = eps is not None and eps.ndim == 3
    context = run(demos, VALID, eps)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(K)
        moved = run(demos[:, order], VALID[:, order], eps[:, order] if by_slot else eps)
        np.testing.assert_allclose(moved.tokens, context.tokens, atol=1e-5)
        np.testing.assert_allclose(moved.kl, context.kl, rtol=1e-5)
    other = run(np.where(VALID[..., None, None], demos, 7).astype(np.uint8), VALID, eps)
    wider = run(np.pad(demos, ((0, 0), (0, 2), (0, 0), (0, 0)), constant_values=3), np.pad(VALID, ((0, 0), (0, 2))),
                np.pad(eps, ((0, 0), (0, 2), (0, 0)), constant_values=9.0) if by_slot else eps)
    np.testing.assert_array_equal(other.tokens, context.tokens)
    np.testing.assert_array_equal(other.kl, context.kl)
    np.testing.assert_allclose(wider.tokens, context.tokens, atol=1e-5)
    np.testing.assert_allclose(wider.kl, context.kl, rtol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_of_nothing_is_zero_and_has_a_finite_gradient(pooling):
    """Of a grid that is PAD throughout, beside one that is not."""
    graph, params, buffers = split(filled(lambda: POOLINGS[pooling](ARCH, parameter_keys(0))))
    hidden, mask = np.random.default_rng(0).normal(size=(2, S, 16)).astype(np.float32), np.zeros((2, S), bool)
    mask[1, :3] = True

    def loss(params, hidden):
        pooled = nnx.merge(graph, params, buffers)(hidden, mask)
        return jnp.square(pooled).sum(), pooled

    (_, pooled), grads = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, hidden)
    assert not pooled[0].any() and pooled[1].any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads)) and not grads[1][0].any()


@pytest.mark.parametrize("kind", ["hybrid_variational", "lpn_variational"])
def test_noise_is_explicit_and_moves_the_context(kind, demos):
    eps = make(kind).noise(jax.random.key(0), B, K)
    assert eps.shape == ((B, K, 16) if kind == "lpn_variational" else (B, 16))
    drawn, mean = encode(kind)(demos, VALID, eps), encode(kind)(demos, VALID)
    assert np.abs(np.subtract(drawn.tokens, mean.tokens))[:2].max() > 1e-3
    np.testing.assert_allclose(drawn.kl, mean.kl, rtol=1e-6)


def test_kl_counts_only_rows_that_are_encoded(demos):
    run = encode("hybrid_variational")
    alone = run(demos[:1], VALID[:1]).kl
    chosen = run(demos, VALID, rows=np.asarray([True, False, False, False])).kl
    np.testing.assert_allclose(chosen, alone, rtol=1e-5)


@pytest.mark.parametrize("kind", ["hybrid_variational", "lpn_variational"])
def test_kl_does_not_depend_on_the_batch_size(kind, demos):
    twice = encode(kind)(np.tile(demos, (2, 1, 1, 1)), np.tile(VALID, (2, 1))).kl
    np.testing.assert_allclose(twice, encode(kind)(demos, VALID).kl, rtol=1e-6)


def test_log_variance_of_a_task_latent_is_clamped():
    latent = filled(lambda: TaskLatent(ARCH, parameter_keys(0)))
    latent.logvar_proj.bias[...] = np.full((16,), 100.0, np.float32)
    log_variance = jax.jit(lambda tokens: latent(tokens, None)[1].log_variance)(np.ones((1, 2, 16), np.float32))
    assert (np.asarray(log_variance) == 10).all()


def test_packing_runs_only_chunks_with_a_valid_slot():
    """40 slots, one a chunk: an encoder that counts its calls on the host sees the valid ones only."""
    calls = []

    def encode(_, pairs):
        jax.debug.callback(lambda: calls.append(1))
        return pairs.reshape(len(pairs), -1).astype(jnp.float32)

    demos, valid = np.arange(40 * 2 * 1024, dtype=np.int32).reshape(10, 4, 2, 1024), np.zeros((10, 4), bool)
    valid[3, 1] = valid[9, 3] = True
    out = jax.jit(lambda d, v: encode_valid(encode, (), d, v, keep=False))(demos, valid)
    jax.effects_barrier()
    assert len(calls) == 2
    np.testing.assert_array_equal(out, demos.reshape(10, 4, -1) * valid[..., None])


def test_chunks_are_small_of_long_pairs_and_never_larger_than_the_batch():
    """(slots, tokens of a pair): R1 on a CPU and on a GPU, a tiny run, and the smallest there is."""
    assert [chunk_size(*case) for case in ((40, 1800), (2560, 1800), (10**4, 1800), (64, 200), (3, 18))] == [
        1, 20, 64, 2, 3]


@pytest.mark.parametrize("keep", [False, True])
def test_kept_and_recomputed_chunks_give_the_same_gradient(monkeypatch, keep):
    """Five chunks; any number of valid slots, none included."""
    monkeypatch.setattr(packing, "MIN_TOKENS", 2 * 9 * 2)
    monkeypatch.setattr(packing, "CHUNKS", 5)
    rng = np.random.default_rng(0)
    a, b, demos, R = (jnp.asarray(rng.normal(size=shape), jnp.float32)
                      for shape in ((9, 6), (6, 3), (5, 2, 2, 9), (5, 2, 3)))
    weights = {"a": a, "b": b}

    def encode(weights, pairs):
        return jnp.sin(jnp.tanh(pairs @ weights["a"]).sum(axis=1) @ weights["b"])

    def dense(weights, valid):
        return (encode(weights, demos.reshape(10, 2, 9)).reshape(5, 2, 3) * valid[..., None] * R).sum()

    def packed(weights, valid):
        return (encode_valid(encode, weights, demos, valid, keep=keep) * R).sum()

    found, expected = (jax.jit(jax.value_and_grad(f)) for f in (packed, dense))
    for count in (0, 1, 4, 5, 10):
        valid = (rng.permutation(10) < count).reshape(5, 2)
        jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5),
                     found(weights, valid), expected(weights, valid))
    kept = jax.tree.leaves(jax.eval_shape(lambda w: jax.vjp(lambda w: packed(w, valid), w)[1], weights))
    others = 5 * 2 * 2 * 9 + 10 + 9 * 6 + 6 * 3 + 5 * 2 * 3  # demonstrations, mask, weights, R
    assert (sum(leaf.size for leaf in kept) > others) == keep
