"""Whole training trajectories of the PyTorch trainers, step by step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import golden, parity
from tools.torch_names import to_torch
from trm_jax.dynamics.act import Exploration
from trm_jax.dynamics.optim import Optimiser
from trm_jax.dynamics.state import initial_state
from trm_jax.dynamics.steps import Draws, ModeConfig, Recipe, online_update, original_update
from trm_jax.models.etrm import split

PARAMETER_ATOL = 2e-5
GROUPS = 64  # above every task's number
RARE = 1e-4  # share of elements whose gradient is rounding noise: AdamATan2 may move them by lr either way


@functools.cache
def program(graph, mode, loss, optim):
    """The optimiser, and an update under jit: cases with the same ones share it."""
    optimiser = Optimiser(optim, total_steps=100)
    update = online_update if mode.name == "online" else original_update
    return optimiser, jax.jit(functools.partial(update, Recipe(graph, mode, loss, optimiser, GROUPS)))


def run(case):
    """Yields (state, metrics, forward) after every recorded update, and for online mode after every ACT step."""
    model, batches, arrays = golden.etrm(case), golden.batches(case), case.arrays
    online = case.info["mode"] == "online"
    act_steps = case.info["config"].get("num_act_steps", 1)
    mode = ModeConfig("online" if online else "original", act_steps,
                      "once" if case.info["mode"] == "cached" else "every_step")
    optimiser, update = program(split(model)[0], mode, golden.loss_config(case), golden.optim_config(case))
    state = initial_state(model, optimiser, jax.random.key(0), None if online else batches[0])
    eps = jnp.asarray(arrays["eps"]) if "eps" in arrays else None
    for i, batch in enumerate(batches):
        if online:
            noise = None if eps is None else eps[i * act_steps:(i + 1) * act_steps]
            state, metrics, forward = update(state, batch, Draws(None, noise))
            yield i, state, metrics, forward
        else:
            exploration = Exploration(jnp.asarray(arrays["explore_uniform"][i]),
                                      jnp.asarray(arrays["explore_min_steps"][i]))
            draws = Draws(exploration, None if eps is None else eps[i])
            state, metrics, forward = update(state, batch, draws)
            yield i, state, metrics, forward


def close(case, name, actual, expected, floor=0.0):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=case.atol(name, floor), err_msg=name)


def parameters_close(case, actual, expected, steps, name):
    """The README's rule: 2e-5 absolute, but for a rare element whose first gradients are rounding noise."""
    difference = np.abs(np.asarray(actual) - expected)
    assert (difference > PARAMETER_ATOL).mean() <= RARE, name
    assert difference.max() <= 2 * case.info["optimizer"]["lr"] * steps, name


def check_outputs(case, step, forward):
    arrays = case.arrays
    close(case, "q_halt_logits", forward.q[:, 0], arrays["q_halt_logits"][step], 5e-5)
    close(case, "q_continue_logits", forward.q[:, 1], arrays["q_continue_logits"][step], 5e-5)
    close(case, "logits_first16", forward.logits.reshape(-1)[:16], arrays["logits_first16"][step], 5e-5)
    close(case, "logits_mean", forward.logits.mean(), arrays["logits_mean"][step], 1e-5)
    np.testing.assert_array_equal(forward.rows.correct, arrays["seq_is_correct"][step])


def check_parameters(case, step, state):
    ours = to_torch(state.params, state.buffers)
    for name in case.info["named_tensors_after_each_step"]:
        expected = case.arrays[f"after/{name}"][step]
        parameters_close(case, ours[name.removeprefix("model.")], expected, step + 1, name)


@pytest.mark.parity
@pytest.mark.parametrize("case", parity.cases("D"), ids=str)
def test_original_trajectory(case):
    arrays, B = case.arrays, case.info["config"]["batch_size"]
    encoder_updates = 0
    for step, state, metrics, forward in run(case):
        check_outputs(case, step, forward)
        np.testing.assert_array_equal(state.carry.steps, arrays["steps"][step])
        np.testing.assert_array_equal(state.carry.halted, arrays["halted"][step])
        np.testing.assert_array_equal(state.carry.batch.labels, arrays["labels_used"][step])
        close(case, "loss", metrics["loss"].sum * B, arrays["loss"][step], 1e-4)
        for ours, name in (("encoder", "grad_norm_encoder"), ("decoder", "grad_norm_inner"), ("total", "grad_norm")):
            np.testing.assert_allclose(metrics[f"grad/{ours}_norm"].sum, arrays[name][step], rtol=1e-4, atol=1e-5)
        check_parameters(case, step, state)
        encoder_updates += bool(arrays["encoder_grad_present"][step])
        counts = {int(c) for c in jax.tree.leaves(state.opt.count["encoder"])}
        assert counts == {encoder_updates}
        check_metrics(case, step, metrics)
        taken = metrics["halted_steps"]
        expected = arrays["steps"][step][arrays["halted"][step]]
        assert (taken.sum, taken.count) == (expected.sum(), len(expected))
    check_final(case, state, step + 1)


@pytest.mark.parity
@pytest.mark.parametrize("case", parity.cases("C"), ids=str)
def test_online_trajectory(case):
    arrays, B = case.arrays, case.info["config"]["batch_size"]
    act_steps = case.info["config"]["num_act_steps"]
    for i, state, metrics, forward in run(case):
        rows = slice(i * act_steps, (i + 1) * act_steps)
        for step in range(rows.start, rows.stop):
            check_outputs(case, step, jax.tree.map(lambda leaf, at=step - rows.start: leaf[at], forward))
        np.testing.assert_allclose(metrics["loss"].sum * B, arrays["loss"][rows].sum(), atol=1e-4 * act_steps)
        for ours, name in (("encoder", "grad_norm_encoder"), ("decoder", "grad_norm_inner"), ("total", "grad_norm")):
            np.testing.assert_allclose(metrics[f"grad/{ours}_norm"].sum, arrays[name][rows].sum(), rtol=1e-4)
        for name in ("accuracy", "exact_accuracy", "q_halt_accuracy"):
            np.testing.assert_allclose(metrics[name].sum, arrays[f"metrics/{name}"][rows].sum(), atol=1e-5)
        check_parameters(case, rows.stop - 1, state)
    check_final(case, state, rows.stop)


def check_metrics(case, step, metrics):
    arrays = case.arrays
    for name in ("accuracy", "exact_accuracy", "q_halt_accuracy", "lm_loss", "q_halt_loss", "steps"):
        close(case, f"metrics/{name}", metrics[name].sum, arrays[f"metrics/{name}"][step], 1e-5)
    if case.info["mode"] == "reencode":  # PyTorch's cached mode measures rows that it does not use, too
        for ours, name in (("encoder_norm", "encoder_output_norm"), ("encoder_token_std",) * 2,
                           ("encoder_cross_sample_var",) * 2, ("encoder_within_task_var", "encoder_within_group_var")):
            mean = float(metrics[ours].sum) / max(float(metrics[ours].count), 1)
            close(case, f"metrics/{name}", mean, arrays[f"metrics/{name}"][step], 1e-5)
    if "metrics/kl_loss" in arrays:
        kl = metrics["kl_loss"].sum / metrics["kl_loss"].count
        close(case, "metrics/kl_loss", kl, arrays["metrics/kl_loss"][step], 1e-5)


def check_final(case, state, steps):
    """Every parameter at the end, or, where the case does not hold them, what its digest says of each."""
    ours = to_torch(state.params, state.buffers)
    if (case.folder / "final_state_dict.pt").exists():
        expected = golden.weights(case, "final_state_dict.pt")
        assert ours.keys() == expected.keys()
        for name, array in expected.items():
            parameters_close(case, ours[name], array, steps, name)
    for name, digest in zip(case.info["final_digest_names"], case.arrays["final_digest"], strict=True):
        array = ours[name.removeprefix(golden.PREFIX)]
        start = np.zeros(4)
        start[:min(4, array.size)] = array.reshape(-1)[:4]
        actual = [array.mean(), array.std(ddof=1), np.linalg.norm(array), *start]
        np.testing.assert_allclose(actual, digest, rtol=1e-5, atol=PARAMETER_ATOL, err_msg=name)
