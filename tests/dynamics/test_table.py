"""Sign-SGD on the rows of an embedding table: against TRM's, and a whole training against the PyTorch reference."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests import parity
from tests.dynamics.test_inference import ENCODER
from tests.dynamics.test_optim import CONFIG
from tests.filled import filled
from tests.models.test_decoder import SMALL
from tools import torch_reference as reference
from tools.torch_names import to_torch
from trm_jax.dynamics.act import Batch, Exploration
from trm_jax.dynamics.losses import LossConfig
from trm_jax.dynamics.optim import Optimiser
from trm_jax.dynamics.state import initial_state
from trm_jax.dynamics.steps import Draws, ModeConfig, Recipe, original_update
from trm_jax.dynamics.table import update_rows
from trm_jax.models.etrm import ETRM, split
from trm_jax.models.layers import parameter_keys
from trm_jax.run.mesh import data_mesh, summed_over_rows


@pytest.mark.parity
@pytest.mark.parametrize("case", parity.cases("G"), ids=str)
def test_sparse_embedding(case):
    """Three updates with duplicate rows, one of whose gradients cancel; rows that do not occur stand still."""
    arrays, lr, decay = case.arrays, case.info["lr"], case.info["weight_decay"]
    table = jnp.asarray(case.state_dict()["_orig_mod.model.inner.puzzle_emb.weights"].numpy())
    for step, row in enumerate(arrays["ids"]):
        np.testing.assert_allclose(table[row], arrays["output"][step], rtol=0, atol=1e-6)
        table = jax.jit(update_rows)(table, row, arrays["local_grad"][step], lr, decay)
        np.testing.assert_allclose(table, arrays["weights"][step], rtol=0, atol=1e-6)
    np.testing.assert_allclose(table, arrays["eval_output"], rtol=0, atol=1e-6)


ARCH = dataclasses.replace(SMALL, hidden_size=32, num_heads=4, halt_max_steps=3)
B, S, STEPS, ROWS = 8, 16, 8, 5  # fewer rows of the table than of the batch: some occur more than once
WARMUP = 4
OPTIM = dataclasses.replace(CONFIG, lr=1e-3, lr_warmup_steps=WARMUP, ema_rate=0.9)


def make_model():
    """The model with weights calm enough for 1e-5, and a Q-head that halts now and then."""
    encoder = dataclasses.replace(ENCODER, type="embedding", embedding_width=40)  # more than one token
    model = filled(lambda: ETRM(ARCH, encoder, S, parameter_keys(0), table_rows=ROWS), 0.5)
    rng = np.random.default_rng(1)
    model.decoder.q_head.kernel[...] = jnp.asarray(rng.normal(0, 0.5, (32, 2)), jnp.float32)
    model.decoder.q_head.bias[...] = jnp.zeros(2)
    return model


def make_batches():
    rng = np.random.default_rng(2)
    return [Batch(inputs=rng.integers(0, 12, (B, S), np.uint8),
                  labels=np.where(rng.random((B, S)) < 0.2, -100, rng.integers(0, 12, (B, S))).astype(np.int32),
                  demos=np.zeros((B, 1, 2, S), np.uint8), demo_mask=np.zeros((B, 1), bool),
                  task=np.zeros(B, np.int32), row=rng.integers(0, ROWS, B).astype(np.int32)) for _ in range(STEPS)]


def make_draws():
    rng = np.random.default_rng(3)
    return [Exploration(rng.random(B).astype(np.float32), rng.integers(2, 4, B).astype(np.int32))
            for _ in range(STEPS)]


def torch_steps():
    """Trains the independent PyTorch model; yields its carry, record, state dict and average after every update."""
    weights = {name: torch.from_numpy(array.copy()) for name, array in to_torch(*split(make_model())[1:]).items()}
    decoder = reference.Decoder(hidden_size=32, num_heads=4, expansion=ARCH.expansion, seq_len=S, puzzle_emb_len=2,
                                L_layers=1, H_cycles=2, L_cycles=2, puzzle_emb_shape=(ROWS, 40))
    decoder.load_state_dict({name.removeprefix("inner."): array for name, array in weights.items()})
    table = reference.RowSignSGD(decoder.puzzle_emb.weights, OPTIM.embedding_lr, OPTIM.embedding_weight_decay)
    optimizer = reference.AdamATan2(decoder.parameters(), OPTIM.lr, (OPTIM.beta1, OPTIM.beta2), OPTIM.weight_decay)
    trainer = reference.Trainer(reference.TRM(decoder, table), optimizer)
    average = {name: p.detach().clone() for name, p in decoder.named_parameters()}
    carry = None
    for step, (batch, drawn) in enumerate(zip(make_batches(), make_draws(), strict=True)):
        data = {"inputs": torch.from_numpy(batch.inputs.astype(np.int64)),
                "labels": torch.from_numpy(batch.labels.astype(np.int64)),
                "puzzle_identifiers": torch.from_numpy(batch.row)}
        carry = reference.empty_carry(trainer.model, data) if carry is None else carry
        warm = min(1.0, (step + 1) / WARMUP)
        optimizer.lr, table.lr = OPTIM.lr * warm, OPTIM.embedding_lr * warm
        carry, record = reference.original_step(
            trainer, carry, data, encode="every_step", halt_max_steps=ARCH.halt_max_steps,
            halt_exploration_prob=ARCH.halt_exploration_prob, explore_uniform=torch.from_numpy(drawn.uniform),
            explore_min_steps=torch.from_numpy(drawn.min_steps))
        for name, p in decoder.named_parameters():
            average[name].lerp_(p.detach(), 1 - OPTIM.ema_rate)
        yield carry, record, {name: p.clone() for name, p in decoder.state_dict().items()}, average


def test_a_training_of_the_pytorch_reference():
    """Look-up, halting, losses, AdamATan2, sign-SGD with duplicate rows, warm-up and average, update by update; on four
    devices, with the rows of each in two parts."""
    model, row_sums = make_model(), summed_over_rows(data_mesh(jax.devices()[:4]), 2)
    recipe = Recipe(split(model)[0], ModeConfig("original", 1, "every_step"), LossConfig("stablemax", 0.0, 0.0, 0.1),
                    Optimiser(OPTIM, 100), groups=1, row_sums=row_sums)
    batches, halted, still = make_batches(), 0, 0
    state = initial_state(model, recipe.optimiser, jax.random.key(0), batches[0])
    update = jax.jit(functools.partial(original_update, recipe))
    for batch, drawn, (carry, record, weights, average) in zip(batches, make_draws(), torch_steps(), strict=True):
        before = state.buffers["encoder"]["table"]
        state, metrics, forward = update(state, batch, Draws(drawn, None))
        row = np.asarray(state.carry.batch.row)
        np.testing.assert_array_equal(state.carry.steps, carry.steps)
        np.testing.assert_array_equal(state.carry.halted, carry.halted)
        np.testing.assert_array_equal(row, carry.data["puzzle_identifiers"])
        np.testing.assert_allclose(forward.logits, record.output.logits.detach(), rtol=0, atol=5e-5)
        np.testing.assert_allclose(forward.q[:, 0], record.output.q_halt.detach(), rtol=0, atol=5e-5)
        np.testing.assert_allclose(metrics["loss"].sum * B, record.loss.total.detach(), rtol=0, atol=1e-4)
        np.testing.assert_allclose(metrics["grad/total_norm"].sum, record.grad_norm, rtol=1e-4)
        for name, ours in to_torch(state.params, state.buffers).items():
            np.testing.assert_allclose(ours, weights[name.removeprefix("inner.")], rtol=0, atol=2e-5, err_msg=name)
        for name, ours in to_torch(state.ema).items():
            np.testing.assert_allclose(ours, average[name.removeprefix("inner.")], rtol=0, atol=2e-5, err_msg=name)
        away = np.setdiff1d(np.arange(ROWS), row)
        np.testing.assert_array_equal(state.buffers["encoder"]["table"][away], before[away])
        still += len(away)
        halted += int(carry.halted.sum())
    assert 0 < halted < B * STEPS and still > 0
