"""Whether the Q-head knows what is right, and whether ACT steps are stuck."""

import numpy as np
import pytest

from tests.comparison.fabricate import (
    BATCH_SIZE,
    BATCHES,
    level,
    online_scalars,
    original_config,
    original_scalars,
    slope,
    write_run,
)
from tests.comparison.judging import criterion, outcomes, verdict_of, write_pair
from trm_jax.comparison.judgement.criteria import Outcome
from trm_jax.comparison.judgement.halting import fewest_steps


@pytest.mark.parametrize(("exploration", "max_steps"), [(0.0, 16), (0.5, 16), (0.5, 4), (1.0, 4), (0.7, 1), (1.0, 2)])
def test_the_fewest_steps_are_those_of_a_head_that_always_halts(exploration, max_steps):
    rng = np.random.default_rng(0)
    steps, rows = np.zeros(40_000), np.arange(40_000)
    while len(rows):
        steps[rows] += 1
        least = rng.integers(min(2, max_steps), max_steps + 1, len(rows))
        must = rng.uniform(size=len(rows)) < exploration
        halted = ~must | (steps[rows] >= least)
        rows = rows[~halted]
    assert fewest_steps(exploration, max_steps) == pytest.approx(steps.mean(), rel=0.02)


@pytest.mark.parametrize(
    ("steps", "reason"),
    [(1.0, "stuck at the minimum"), (1.9, "stuck at the minimum"), (16.0, "stuck at the maximum")],
)
def test_stuck_steps(tmp_path, steps, reason):
    """With exploration 0.5 a Q-head that always halts takes 1.88 of 16 steps."""
    first = np.linspace(8, steps, 50)  # it did move, and then got stuck
    at, values = level(steps)
    scalars = original_scalars(train__steps=(at, np.concatenate([first, values[50:]])))
    verdict = verdict_of(*write_pair(tmp_path, scalars, online_scalars()))
    assert criterion(verdict, "steps").outcome == Outcome.FAIL
    assert criterion(verdict, "steps").reason == reason
    assert outcomes(verdict)[0] == Outcome.FAIL


def test_without_a_configuration_the_fewest_steps_are_one(tmp_path):
    scalars = original_scalars(train__steps=slope(14.0, 1.9))
    run = write_run(tmp_path / "o1", scalars)
    assert criterion(verdict_of(run), "steps").outcome == Outcome.PASS
    known = write_run(tmp_path / "known" / "o1", scalars, original_config())
    assert criterion(verdict_of(known), "steps").outcome != Outcome.PASS


def test_halting_at_once_is_right_where_the_answers_are(tmp_path):
    scalars = original_scalars(
        train__steps=level(1.9),
        train__exact_accuracy=slope(0.0, 0.8),
        train__halted_exact_accuracy=slope(0.2, 0.99),
    )
    steps = criterion(verdict_of(*write_pair(tmp_path, scalars, online_scalars())), "steps")
    assert (steps.outcome, steps.reason) == (Outcome.PASS, "halting at once is right here")
    assert "exact accuracy, rows that halt" in steps.evidence


@pytest.mark.parametrize(
    ("act_steps", "outcome"),
    [(1, Outcome.FAIL), (16, Outcome.FAIL), (np.linspace(14, 5, 2500), Outcome.PASS)],
)
def test_counted_samples_show_steps_that_the_mean_over_rows_hides(tmp_path, act_steps, outcome):
    """All rows march in step to 16: their mean swings around 8.5, and looks alive."""
    steps = np.arange(10, BATCHES + 1, 10)
    entered = np.cumsum(BATCH_SIZE / np.broadcast_to(act_steps, BATCHES))
    if np.ndim(act_steps) == 0:
        entered = BATCH_SIZE * (1 + np.arange(BATCHES) // act_steps)
    scalars = original_scalars(
        train__steps=(steps, 1 + (steps - 1) % 16.0), train__samples=(steps, entered[steps - 1])
    )
    verdict = verdict_of(*write_pair(tmp_path, scalars, online_scalars()))
    assert criterion(verdict, "steps").outcome == outcome


def test_steps_that_do_not_move(tmp_path):
    scalars = original_scalars(train__steps=level(6.0, noise=0.1))
    verdict = verdict_of(*write_pair(tmp_path, scalars, online_scalars()))
    assert criterion(verdict, "steps").reason == "does not move"


@pytest.mark.parametrize(
    ("last", "noise", "outcome"),
    [(0.93, 0.01, Outcome.PASS), (0.7, 0.01, Outcome.FAIL), (0.81, 0.15, Outcome.UNDECIDED)],
)
def test_q_head(tmp_path, last, noise, outcome):
    scalars = original_scalars(train__q_halt_accuracy=slope(0.6, last, noise=noise))
    verdict = verdict_of(*write_pair(tmp_path, scalars, online_scalars()))
    assert criterion(verdict, "Q-head").outcome == outcome


@pytest.mark.parametrize(
    ("exact", "q_head", "outcome", "word"),
    [
        (0.01, 0.99, Outcome.UNDECIDED, "wrong"),
        (0.95, 0.95, Outcome.UNDECIDED, "right"),
        (0.95, 0.85, Outcome.FAIL, "right"),
        (0.50, 0.95, Outcome.PASS, ""),
    ],
)
def test_a_q_head_must_beat_one_that_always_says_the_same(tmp_path, exact, q_head, outcome, word):
    scalars = original_scalars(
        train__q_halt_accuracy=level(q_head, noise=0.005), train__exact_accuracy=level(exact, noise=0.005, seed=1)
    )
    found = criterion(verdict_of(*write_pair(tmp_path, scalars, online_scalars())), "Q-head")
    assert found.outcome == outcome
    assert (f"always says “{word}”" in found.reason) if word else not found.reason
