"""Metrics of collapse: of contexts whose variance is known, of any choice of rows, and of any cut into batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trm_jax.dynamics import collapse
from trm_jax.dynamics.metrics import summarise
from trm_jax.models.encoders import Context
from trm_jax.models.encoders.latent import Posterior
from trm_jax.run.mesh import by_rows, data_mesh, replicated

TASKS, ROWS, T, D = 40, 6, 2, 8  # rows of each task
TASK = np.repeat(np.arange(TASKS), ROWS)


def context(tokens, posterior=None, weight=None):
    return Context(jnp.asarray(tokens, jnp.float32), posterior, weight)


@functools.partial(jax.jit, static_argnames="width")
def metrics_of(tokens, rows, task, width=None, key=None):
    return collapse.collapse_metrics(collapse.measure(context(tokens), rows, task, TASKS, width, key))


def contexts(between, within, seed=0):
    """1 + a normal code of each task + normal noise of each row, (TASKS · ROWS, T, D)."""
    rng = np.random.default_rng(seed)
    code = rng.normal(size=(TASKS, T, D))[TASK]
    return 1 + between * code + within * rng.normal(size=code.shape)


def values(tokens, rows=None, task=TASK):
    rows = np.ones(len(tokens), bool) if rows is None else rows
    return summarise(1, [jax.device_get(metrics_of(tokens, jnp.asarray(rows), jnp.asarray(task)))])


def test_a_context_that_tells_tasks_apart():
    found = values(contexts(between=1.0, within=0.1))
    assert found["encoder_relative_var"] == pytest.approx(0.5, abs=0.05)  # variance 1 about a mean of 1
    assert found["encoder_collapse_ratio"] == pytest.approx(0.01, abs=0.002)
    assert found["encoder_within_task_var"] == pytest.approx(0.01 * (ROWS - 1) / ROWS, rel=0.1)


@pytest.mark.parametrize("repeats", [2, ROWS])
def test_a_context_that_varies_but_not_with_the_task_has_ratio_one(repeats):
    """However few rows a task has: both variances are unbiased."""
    rows = np.tile(np.arange(ROWS) < repeats, TASKS)
    ratios = [values(contexts(0.0, 1.0, seed), rows)["encoder_collapse_ratio"] for seed in range(5)]
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.05)


def test_a_context_that_hardly_varies_shows_in_the_relative_variance():
    assert values(np.ones((len(TASK), T, D)))["encoder_relative_var"] < 1e-12
    nearly = values(contexts(between=1e-3, within=1e-4))
    assert nearly["encoder_relative_var"] == pytest.approx(1e-6, rel=0.1)


def test_the_ratio_is_left_out_where_all_rows_of_a_task_are_the_same():
    found = values(contexts(between=1.0, within=0.0))
    assert "encoder_collapse_ratio" not in found and found["encoder_relative_var"] > 0.4


def test_every_number_against_numpy_over_the_chosen_rows():
    rng = np.random.default_rng(0)
    tokens, rows = contexts(0.5, 0.3), rng.random(len(TASK)) < 0.3
    found, x = values(tokens, rows), tokens[rows].reshape(rows.sum(), -1)
    groups = [x[TASK[rows] == task] for task in range(TASKS)]
    groups = [group for group in groups if len(group)]
    within = sum(((group - group.mean(axis=0)) ** 2).mean(axis=1).sum() for group in groups)
    within /= sum(len(group) - 1 for group in groups)
    expected = {
        "encoder_norm": np.linalg.norm(tokens[rows], axis=-1).mean(),
        "encoder_token_std": x.std(axis=0, ddof=1).mean(),
        "encoder_cross_sample_var": x.var(axis=0).mean(),
        "encoder_within_task_var": np.mean([g.var(axis=0).mean() for g in groups if len(g) > 1]),
        "encoder_relative_var": x.var(axis=0, ddof=1).mean() / (x**2).mean(),
        "encoder_collapse_ratio": within / x.var(axis=0, ddof=1).mean(),
    }
    assert found == pytest.approx(expected, rel=1e-5)


def test_steps_that_encode_one_row_or_none_do_not_pull_the_mean_down():
    tokens = contexts(0.5, 0.3)
    window = [jax.device_get(metrics_of(tokens, jnp.arange(len(TASK)) < rows, jnp.asarray(TASK)))
              for rows in (len(TASK), 1, 0)]
    whole = summarise(1, window[:1])
    for name, value in summarise(1, window).items():
        if name != "encoder_norm":  # a row that is encoded has a norm
            assert value == pytest.approx(whole[name], rel=1e-6), name
    assert summarise(1, window[2:]) == {}


def test_a_sketch_of_a_context_keeps_its_variance_within_tasks():
    """Unbiased over keys, with a standard error that falls with the width; everything else stays exact."""
    tokens, rows, task = contexts(0.5, 0.3), jnp.ones(len(TASK), bool), jnp.asarray(TASK)
    exact = summarise(1, [jax.device_get(metrics_of(tokens, rows, task))])
    for width, tolerance in ((2, 0.15), (7, 0.05)):
        keys = jax.random.split(jax.random.key(0), 40)
        found = summarise(1, [jax.device_get(metrics_of(tokens, rows, task, width, key)) for key in keys])
        assert found == pytest.approx(exact, rel=tolerance)
        for name in exact.keys() - {"encoder_within_task_var", "encoder_collapse_ratio"}:
            assert found[name] == pytest.approx(exact[name], rel=1e-6), name
    still = np.repeat(tokens[::ROWS], ROWS, axis=0)  # all rows of a task are the same, in a sketch too
    assert "encoder_collapse_ratio" not in summarise(1, [jax.device_get(metrics_of(still, rows, task, 2, keys[0]))])


def statistics(tokens, rows, devices):
    """Statistics of rows that are split over devices; the posterior's mean is the first token, its σ is e⁻¹."""
    mesh = data_mesh(jax.devices()[:devices])

    def measure(tokens, rows, task):
        posterior = Posterior(tokens[:, 0], jnp.full_like(tokens[:, 0], -2.0))
        return collapse.measure(context(tokens, posterior, rows), rows, task, TASKS)

    split = jax.jit(measure, in_shardings=by_rows(mesh), out_shardings=replicated(mesh))
    return jax.device_get(split(jnp.asarray(tokens, jnp.float32), jnp.asarray(rows), jnp.asarray(TASK)))


def test_neither_devices_nor_batches_matter_and_the_latent_is_measured():
    tokens, rows = contexts(0.5, 0.3), np.random.default_rng(0).random(len(TASK)) < 0.8
    whole = statistics(tokens, rows, devices=1)
    cuts = np.arange(len(TASK)) // 77  # batches that cut tasks in two, and a last one that is short
    batches = [statistics(tokens, rows & (cuts == cut), devices=8) for cut in range(cuts.max() + 1)]
    one, many = (summarise(1, [jax.device_get(collapse.collapse_metrics(found))])
                 for found in (whole, functools.reduce(collapse.add, batches)))
    assert many == pytest.approx(one, rel=1e-5)
    mu = tokens[rows, 0]
    assert one["posterior_mean_var"] == pytest.approx(mu.var(axis=0, ddof=1).mean(), rel=1e-5)
    assert one["posterior_std"] == pytest.approx(np.exp(-1), rel=1e-6)
    assert one["kl_loss"] == pytest.approx(0.5 * (mu**2 + np.exp(-2) + 1).sum(axis=1).mean(), rel=1e-5)
