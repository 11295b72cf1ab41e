import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import golden, parity
from tests.filled import filled
from trm_jax.dynamics.act import Batch
from trm_jax.dynamics.inference import encode_variants, solve_rows
from trm_jax.dynamics.losses import row_losses
from trm_jax.models.decoder import ArchConfig
from trm_jax.models.encoders import EncoderConfig
from trm_jax.models.etrm import ETRM, split
from trm_jax.models.layers import parameter_keys
from trm_jax.run.mesh import data_mesh, summed_over_rows

EVALUATED = [case for group in "CD" for case in parity.cases(group) if "eval/preds" in case.arrays]
MAX_STEPS = 5


@pytest.mark.parity
@pytest.mark.parametrize("case", EVALUATED, ids=str)
def test_golden_evaluation(case):
    batch, arrays = golden.batches(case)[0], case.arrays
    graph, params, buffers = golden.etrm_parts(case, "final_state_dict.pt")

    @jax.jit
    def run(params, buffers, batch):
        model = nnx.merge(graph, params, buffers)
        context = model.encoder(batch.demos, batch.demo_mask)
        return solve_rows(model, batch, context.tokens, jnp.ones(len(batch.inputs), bool), "max_steps")

    prediction, logits = run(params, buffers, batch)
    np.testing.assert_array_equal(prediction.tokens, arrays["eval/preds"])
    atol = {name: case.atol(f"eval/{name}") for name in ("last_logits", "q_halt_logits", "loss")}
    np.testing.assert_allclose(logits, arrays["eval/last_logits"], rtol=0, atol=atol["last_logits"])
    np.testing.assert_allclose(prediction.q_halt, arrays["eval/q_halt_logits"][-1], rtol=0, atol=atol["q_halt_logits"])
    rows = row_losses(logits, prediction.q_halt, batch.labels, golden.loss_config(case).type)
    loss = rows.lm.sum() + 0.5 * rows.q_halt.sum()
    np.testing.assert_allclose(loss, arrays["eval/loss"][-1], rtol=0, atol=atol["loss"])


class Countdown:
    """A decoder whose logits name the number of the step, and which wants to halt at a step given per row."""

    def __init__(self, stops):
        self.arch = types.SimpleNamespace(halt_max_steps=MAX_STEPS)
        self.lm_head = types.SimpleNamespace(out_features=12)
        self.stops = jnp.asarray(stops)
        self.calls = 0

    def initial(self, rows):
        return jnp.zeros(rows, jnp.int32)

    def __call__(self, step, inputs, context):
        jax.debug.callback(self.count)
        step = step + 1
        logits = jnp.broadcast_to(jax.nn.one_hot(step, 12)[:, None], (*inputs.shape, 12))
        return step, logits, jnp.where(step == self.stops, 1.0, -step.astype(jnp.float32))[:, None]

    def count(self):
        self.calls += 1


def run_countdown(stops, real, halt):
    decoder, batch = Countdown(stops), types.SimpleNamespace(inputs=jnp.zeros((len(stops), 4), jnp.uint8))
    prediction, _ = jax.jit(lambda real: solve_rows(types.SimpleNamespace(decoder=decoder), batch, None, real, halt))(
        jnp.asarray(real))
    jax.effects_barrier()
    return prediction, decoder.calls


def test_each_row_stops_at_its_own_step_and_all_stop_together():
    prediction, calls = run_countdown([2, 1, 3], [True] * 3, "q")
    np.testing.assert_array_equal(prediction.steps, [2, 1, 3])
    np.testing.assert_array_equal(prediction.tokens[:, 0], [2, 1, 3])  # a stopped row's answer stands
    np.testing.assert_array_equal(prediction.q_halt, [1, 1, 1])
    assert calls == 3 < MAX_STEPS


def test_max_steps_ignores_the_halt_logit():
    prediction, calls = run_countdown([2, 1, 3], [True] * 3, "max_steps")
    np.testing.assert_array_equal(prediction.steps, [MAX_STEPS] * 3)
    np.testing.assert_array_equal(prediction.q_halt, [-MAX_STEPS] * 3)
    assert calls == MAX_STEPS


def test_a_row_that_never_wants_to_halt_stops_at_the_limit():
    prediction, _ = run_countdown([1, 99], [True] * 2, "q")
    np.testing.assert_array_equal(prediction.steps, [1, MAX_STEPS])


@pytest.mark.parametrize("halt", ["q", "max_steps"])
def test_no_step_is_taken_for_padded_rows(halt):
    """A padded row never wants to halt, and must not keep the others' batch going."""
    prediction, calls = run_countdown([1, 99], [True, False], halt)
    assert calls == prediction.steps[0] and prediction.steps[1] == 0 and not prediction.tokens[1].any()
    assert run_countdown([99, 99], [False, False], halt)[1] == 0


ARCH = ArchConfig(hidden_size=16, num_heads=2, expansion=1.0, L_layers=1, H_cycles=1, L_cycles=1, puzzle_emb_len=2,
                  pos_encodings="rope", mlp_t=False, forward_dtype="float32", attention="xla", remat="none",
                  halt_max_steps=2, halt_exploration_prob=0.0)
ENCODER = EncoderConfig(type="standard", num_layers=1, pooling_method="mean", set_layers=1, norm_style="post",
                        layer_scale_init=0.0, final_norm=True, embedding_width=0, max_demos=3)


def test_demos_of_a_variant_are_encoded_once_per_device():
    """The same numbers as from encoding every row, though the repeated demonstrations are not even looked at.

    Rows that only fill the batch have no demonstrations and give finite numbers.
    """
    rng = np.random.default_rng(0)
    mesh, rows = data_mesh(jax.devices()[:2]), 12
    model = filled(lambda: ETRM(ARCH, ENCODER, 9, parameter_keys(0)))
    variant = np.array([0, 0, 1, 1, 1, 2, 2, 3, 3, -1, -1, -1])
    real = variant >= 0
    demos = rng.integers(0, 12, (5, 3, 2, 9), dtype=np.uint8)[variant]
    batch = Batch(inputs=np.zeros((rows, 9), np.uint8), labels=np.zeros((rows, 9), np.int32), demos=demos,
                  demo_mask=np.array([True, True, False]) & real[:, None], task=variant.astype(np.int32),
                  row=np.zeros(rows, np.int32))
    graph, params, buffers = split(model)

    def encode(weights, batch, variant):
        model = nnx.merge(graph, *weights)
        every = model.encoder(batch.demos, batch.demo_mask)
        return (), (), (encode_variants(model, batch, variant).tokens, every.tokens)

    def run(params, batch, variant):
        return jax.jit(summed_over_rows(mesh)(encode))((params, buffers), batch, variant)[2]

    once, every = run(params, batch, variant)
    assert np.isfinite(once).all()
    np.testing.assert_allclose(once, every, rtol=0, atol=1e-6)
    assert np.ptp(np.asarray(every)[real], axis=0).max() > 0.1

    # The second device encodes variant 2 again: nothing crosses devices.
    first = np.array([1, 0, 1, 0, 0, 1, 1, 1, 0, 1, 0, 0], bool)
    unread = np.where(first[:, None, None, None], demos, 0)
    np.testing.assert_array_equal(run(params, batch.replace(demos=unread), variant)[0], once)
