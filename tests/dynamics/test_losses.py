import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import parity
from trm_jax.data.arc.grids import IGNORE
from trm_jax.dynamics.losses import TOKEN_LOSSES, row_losses, stablemax_cross_entropy, total_loss

CASES = parity.cases("E", "losses")


@pytest.mark.parity
@pytest.mark.parametrize("name", TOKEN_LOSSES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_token_losses_and_gradients(case, name):
    arrays = case.arrays
    for scale in sorted({key.split("/")[0] for key in arrays if key.endswith("/logits")} - {"head"}):
        logits, labels = jnp.asarray(arrays[f"{scale}/logits"]), arrays[f"{scale}/labels"]
        valid = labels != IGNORE

        def loss(logits, labels=labels, valid=valid):
            return jnp.where(valid, TOKEN_LOSSES[name](logits, jnp.where(valid, labels, 0)), 0.0)

        @jax.jit
        def with_gradient(logits, cotangent, loss=loss):
            value, pullback = jax.vjp(loss, logits)
            return value, *pullback(cotangent)

        value, gradient = with_gradient(logits, jnp.asarray(arrays[f"{scale}/cotangent"]))
        expected = arrays[f"{scale}/{name}_cross_entropy"]
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=case.atol(f"{scale}/{name}_cross_entropy", 1e-6))
        expected = arrays[f"{scale}/{name}_cross_entropy_grad"]
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parity
@pytest.mark.parametrize("head", ["trm", "etrm_eval", "etrm_train", "etrm_train_kl"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_head(case, head):
    arrays = case.arrays
    B = len(arrays["head/labels"])
    kl_weight = float(arrays["head/etrm_train_kl/grad_kl"]) if head.endswith("kl") else 0.0

    def total(logits, q_halt, kl):
        rows = row_losses(logits, q_halt, jnp.asarray(arrays["head/labels"]), "stablemax")
        return B * total_loss(rows, kl, kl_weight / B, B), rows

    inputs = [jnp.asarray(arrays[f"head/{name}"]) for name in ("logits", "q_halt_logits", "kl_loss")]
    (value, rows), gradients = jax.device_get(jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))(*inputs))
    np.testing.assert_allclose(value, arrays[f"head/{head}/total"], rtol=1e-6)
    np.testing.assert_allclose(gradients[0], arrays[f"head/{head}/grad_logits"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(gradients[1], arrays[f"head/{head}/grad_q_halt"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(rows.lm.sum(), arrays[f"head/{head}/metrics/lm_loss"], rtol=1e-6)
    np.testing.assert_allclose(rows.q_halt.sum(), arrays[f"head/{head}/metrics/q_halt_loss"], rtol=1e-6)
    # The heads of TRM and of evaluation count halted rows only, that of ETRM's training counts all.
    counted = rows.labelled & (arrays["head/halted"] | head.startswith("etrm_train"))
    q_right = (arrays["head/q_halt_logits"] >= 0) == rows.correct
    for name, each in {"count": counted, "accuracy": rows.accuracy, "exact_accuracy": rows.correct,
                       "q_halt_accuracy": q_right}.items():
        np.testing.assert_allclose((each * counted).sum(), arrays[f"head/{head}/metrics/{name}"], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_stablemax_holds_float64(scale):
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(64, 12)) * scale).astype(np.float32)
    labels = rng.integers(0, 12, size=64)
    x = logits.astype(np.float64)
    s = np.where(x >= 0, x + 1, 1 / (1 - np.minimum(x, 0)))
    expected = -np.log(s[np.arange(64), labels] / s.sum(axis=1))
    np.testing.assert_allclose(stablemax_cross_entropy(jnp.asarray(logits), jnp.asarray(labels)), expected,
                               rtol=1e-5, atol=1e-6)


def test_a_row_without_labels_costs_no_token_loss_and_counts_as_right():
    labels = jnp.full((2, 3), IGNORE).at[0].set(5)
    rows = row_losses(jnp.zeros((2, 3, 12)), jnp.zeros(2), labels, "stablemax")
    assert rows.labelled.tolist() == [True, False]
    assert rows.correct.tolist() == [False, True]
    assert rows.lm[1] == 0 and rows.lm[0] == pytest.approx(np.log(12))
