"""Latent search: the gradient that it follows, what it keeps, and that it can make a wrong answer right."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from tests.dynamics.test_inference import ARCH
from tools import torch_reference as reference
from tools.torch_names import from_torch
from tools.torch_reference.losses import TOKEN_LOSSES
from trm_jax.data.arc import grids
from trm_jax.data.arc.grids import VOCAB_SIZE
from trm_jax.dynamics.act import Batch
from trm_jax.dynamics.inference import solve_rows
from trm_jax.dynamics.search import Search, demonstration_loss, search
from trm_jax.models.decoder import Decoder
from trm_jax.models.etrm import split
from trm_jax.models.layers import parameter_keys

SIDE, ROWS, SLOTS = 3, 4, 3
SIZES = {"hidden_size": 16, "num_heads": 2, "expansion": 1.0, "L_layers": 1, "H_cycles": 2, "L_cycles": 2,
         "puzzle_emb_len": 2}


def batch(rng):
    """Rows with two, three, no and one demonstrations; the answers leave some of the canvas empty."""
    demos = rng.integers(2, VOCAB_SIZE, (ROWS, SLOTS, 2, SIDE**2), dtype=np.uint8)
    demos[:, 1, 1, 6:] = grids.PAD
    mask = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 0], [1, 0, 0]], bool)
    return Batch(inputs=jnp.asarray(demos[:, 0, 0]), labels=jnp.zeros((ROWS, SIDE**2), jnp.int32),
                 demos=jnp.asarray(demos), demo_mask=jnp.asarray(mask), task=jnp.arange(ROWS),
                 row=jnp.zeros(ROWS, jnp.int32))


def painted(batch, colours):
    """The same with every cell of a row's demonstrations in one colour."""
    colours = np.broadcast_to(colours, ROWS)[:, None, None, None]
    return batch.replace(demos=jnp.asarray(np.where(batch.demos == grids.PAD, grids.PAD, colours).astype(np.uint8)))


def by_torch(model, batch, tokens, act_steps, loss_type):
    """Loss (B,) of each row's demonstrations and its gradient by the contexts, without anything packed."""
    contexts = torch.tensor(tokens, requires_grad=True)
    losses = []
    for row in range(ROWS):
        found = [torch.zeros(())]
        for slot in np.flatnonzero(batch.demo_mask[row]):
            given, wanted = (torch.tensor(np.array(grid, np.int64))[None] for grid in batch.demos[row, slot])
            latents = model.initial_latents(1)
            for _ in range(act_steps):
                out = model(contexts[row:row + 1], given, latents)
                latents = out.latents
            labels = wanted.where(wanted != grids.PAD, -100)
            each = TOKEN_LOSSES[loss_type](out.logits, labels)
            found.append(each.sum() / (labels != -100).sum())
        losses.append(torch.stack(found).sum() / max(1, len(found) - 1))
    losses = torch.stack(losses)
    losses.sum().backward()
    return losses.detach().numpy(), contexts.grad.numpy()


@pytest.mark.parametrize(("loss_type", "act_steps"), [("softmax", 3), ("stablemax", 1)])
def test_the_gradient_is_that_of_the_reference(loss_type, act_steps):
    """Of the last ACT step's last H-cycle, in the mean over demonstrations; a row without any is left in peace."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    theirs = reference.Decoder(**SIZES, seq_len=SIDE**2)
    arch = dataclasses.replace(ARCH, **SIZES, halt_max_steps=act_steps)
    graph, params, buffers = split(nnx.eval_shape(lambda: Decoder(arch, SIDE**2, parameter_keys(0))))
    state = {f"inner.{name}": value.numpy() for name, value in theirs.state_dict().items()}
    params, buffers = from_torch(state, {"decoder": params}, {"decoder": buffers})
    given, tokens = batch(rng), rng.normal(size=(ROWS, 2, 16)).astype(np.float32)

    @jax.jit
    def ours(params, buffers, tokens, rows):
        model = nnx.merge(graph, params["decoder"], buffers["decoder"])
        return demonstration_loss(model, given, rows, tokens, loss_type)

    loss, gradient = ours(params, buffers, tokens, jnp.ones(ROWS, bool))
    expected = by_torch(theirs, given, tokens, act_steps, loss_type)
    assert np.abs(expected[1][[0, 1, 3]]).max() > 1e-3 and not expected[1][2].any()
    np.testing.assert_allclose(loss, expected[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=0, atol=1e-5)
    alone = ours(params, buffers, tokens, jnp.array([False, True, False, False]))
    np.testing.assert_allclose(alone[1][1], expected[1][1], rtol=0, atol=1e-5)
    assert not np.delete(alone[1], 1, axis=0).any()


class Palette:
    """A decoder that paints every cell in the colour which its context names: the first token holds the logits."""

    arch = types.SimpleNamespace(halt_max_steps=2)
    lm_head = types.SimpleNamespace(out_features=VOCAB_SIZE)

    def initial(self, rows):
        return jnp.zeros(rows)

    def __call__(self, z, inputs, context):
        logits = jnp.broadcast_to(context[:, :1], (*inputs.shape, VOCAB_SIZE))
        return z, logits, jnp.zeros((len(inputs), 2))


def searched(given, rows, tokens, how):
    return jax.jit(lambda tokens: search(Palette(), given, rows, tokens, "softmax", how))(tokens)


def test_a_wrong_answer_becomes_right():
    """The loss is convex in the context: a row whose demonstrations are all of colour c must come to answer c."""
    given = painted(batch(np.random.default_rng(0)), [5, 7, 9, 11])
    model, start = types.SimpleNamespace(decoder=Palette()), np.zeros((ROWS, 1, VOCAB_SIZE), np.float32)
    start[..., 3] = 1
    rows = jnp.array([True, True, True, False])

    def answers(tokens):
        return np.asarray(solve_rows(model, given, tokens, jnp.ones(ROWS, bool), "max_steps")[0].tokens)

    found = searched(given, rows, start, Search(20, 0.5))
    assert (answers(start) == 3).all()
    np.testing.assert_array_equal(answers(found.tokens)[:, 0], [5, 7, 3, 3])  # no demonstrations, and not asked for
    assert (found.loss[:2] < 0.3 * found.start_loss[:2]).all() and not found.loss[2:].any()
    np.testing.assert_array_equal(found.tokens[2:], start[2:])


def test_the_best_context_seen_answers():
    """With steps far too long the start stays the best; each loss is that of the context it stands beside."""
    given, start = painted(batch(np.random.default_rng(0)), 5), np.zeros((ROWS, 1, VOCAB_SIZE), np.float32)
    start[..., 5] = 30  # as right as can be
    rows = jnp.ones(ROWS, bool)
    wild = searched(given, rows, start, Search(3, 1e3))
    np.testing.assert_array_equal(wild.tokens, start)
    np.testing.assert_array_equal(wild.loss, wild.start_loss)
    start[..., 5] = 1
    loss = jax.jit(lambda tokens: demonstration_loss(Palette(), given, rows, tokens, "softmax"))
    for steps in (1, 4):
        found = searched(given, rows, start, Search(steps, 0.1))
        np.testing.assert_allclose(found.loss, loss(found.tokens)[0], rtol=1e-6)
        assert np.asarray(found.loss < found.start_loss)[[0, 1, 3]].all()
