"""The formula of useful operations against what XLA counts, at small sizes."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from benchmarks import flops
from benchmarks.hlo import Program
from benchmarks.workload import settings_of
from tests import tiny
from tests.filled import filled
from trm_jax.data.arc.grids import VOCAB_SIZE
from trm_jax.models.encoders import ENCODERS
from trm_jax.models.etrm import ETRM, split
from trm_jax.models.layers import parameter_keys

S, T, D, K = tiny.SIDE**2, 2, 16, 3


def settings(**sections):
    config = tiny.shrink(importlib.import_module("configs.r1").get_config("tiny"), "unused")
    config.arch.update(H_cycles=1, L_cycles=2, forward_dtype="float32")
    for section, fields in sections.items():
        config[section].update(fields)
    return settings_of(config)


def products(f, *args):
    """Operations of the matrix products of f, as XLA compiles it."""
    program = Program(jax.jit(f).lower(*args).compile().as_text())
    return sum(product.operations for product in program.products())


def model(of):
    return filled(lambda: ETRM(of.arch, of.encoder, of.seq_len, parameter_keys(0)))


@pytest.mark.parametrize("arch", [{}, {"mlp_t": True, "pos_encodings": "none", "L_layers": 2}])
def test_an_h_cycle_and_the_heads(arch):
    of = settings(arch=arch)
    decoder = model(of).decoder
    counted = products(decoder, decoder.initial(1), jnp.ones((1, S), jnp.int32), jnp.ones((1, T, D)))
    look_up = 2 * VOCAB_SIZE * D * S  # of the tokens, by a product with one-hot rows: not useful
    assert counted == pytest.approx(flops.h_cycle(of.arch, S) + flops.heads(of.arch, S) + look_up, rel=1e-3)


def test_a_gradient_costs_twice_the_forward_pass():
    """Without attention, whose gradient some forms compute from parts computed anew."""
    of = settings(arch={"mlp_t": True, "pos_encodings": "none"})
    graph, params, buffers = split(model(of).decoder)

    def loss(params, context):
        decoder = nnx.merge(graph, params, buffers)
        return decoder(decoder.initial(1), jnp.ones((1, S), jnp.int32), context)[1].sum()

    counted = products(jax.grad(loss, (0, 1)), params, jnp.ones((1, T, D)))
    assert counted == pytest.approx(3 * flops.h_cycle(of.arch, S), rel=0.05)


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder(kind):
    variational = "variational" in kind
    of = settings(encoder={"type": kind, "set_layers": 1 if "lpn" in kind else 2, "max_demos": K},
                  loss={"kl_weight": 1e-3 if variational else 0.0})
    encoder = model(of).encoder
    valid, rows = jnp.ones((1, K), bool), jnp.ones(1, bool)
    counted = K * products(encoder.grid_encoder, jnp.ones((1, 2, S), jnp.int32))
    counted += products(lambda v: encoder.contextualise(v, valid, rows, None).tokens, jnp.ones((1, K, D)))
    if ENCODERS[kind].latent == "demo":
        counted += K * 2 * D * D  # the variance, which the mean context does not ask for
    if ENCODERS[kind].latent == "task":
        counted += 2 * D * D
    look_up = K * 2 * S * 2 * VOCAB_SIZE * D
    expected = K * flops.demonstration(of.arch, of.encoder, S) + flops.aggregation(of.arch, of.encoder)
    assert counted - look_up == pytest.approx(expected, rel=0.02)


def test_a_block_against_the_cost_analysis_of_xla():
    """Which counts element-wise operations too: a few in a hundred at this size."""
    of = settings(arch={"hidden_size": 64, "num_heads": 2, "L_cycles": 1})
    block = model(of).decoder.L_level.layers[0]
    table = (jnp.ones((S + T, 32)), jnp.ones((S + T, 32)))
    cost = jax.jit(lambda x: block(x, table)).lower(jnp.ones((1, S + T, 64))).compile().cost_analysis()
    formula = flops.h_cycle(dataclasses.replace(of.arch, L_cycles=1, L_layers=1), S) / 2
    assert formula < cost["flops"] < 1.1 * formula


def test_an_update_and_an_answer_are_sums_of_their_parts():
    of = settings(arch={"H_cycles": 3, "halt_max_steps": 3})
    cycle, heads = flops.h_cycle(of.arch, S), flops.heads(of.arch, S)
    pair, row = flops.demonstration(of.arch, of.encoder, S), flops.aggregation(of.arch, of.encoder)
    assert flops.update(of, 0.0, 0.0) == 3 * heads + 5 * cycle  # two H-cycles forward, one with its gradient
    assert flops.update(of, 0.5, 2.0) - flops.update(of, 0.0, 0.0) == pytest.approx(3 * (2 * pair + row / 2))
    assert flops.answer(of, 1.0, 3.0) == pytest.approx(3 * pair + row + 3 * (3 * cycle + heads))
