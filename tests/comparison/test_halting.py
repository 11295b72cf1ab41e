"""Whether the original dynamics halt as the plan hopes."""

import numpy as np
import pytest

from tests.comparison.fabricate import between, rising, run, seeds
from tests.comparison.judging import finding, verdict_of
from trm_jax.comparison.halting import fewest_steps
from trm_jax.comparison.statistics import Standing
from trm_jax.comparison.verdict import ORIGINAL

BETTER, WORSE, OPEN = Standing.BETTER, Standing.WORSE, Standing.UNDECIDED


def test_the_ideal_run_passes_everything(tmp_path):
    """Nearly all is right, the Q-head knows it, and halts at once."""
    ideal = {"train__halted_exact_accuracy": between(0.2, 1.02), "train__exact_accuracy": between(0.2, 1.02),
             "train__q_halt_accuracy": between(0.95, 0.985), "train__halted_steps": between(1.9, 1.9)}
    ideal["train__halted_exact_accuracy"] = ideal["train__exact_accuracy"] = rising(0.99, 0.1)
    for count in (1, 3):
        verdict = verdict_of(*seeds(tmp_path / str(count), "o1", count, **ideal),
                             *seeds(tmp_path / str(count), "l1", count, final=0.7))
        assert [f.standing for f in verdict.validations[0].parts] == [BETTER] * 3
        assert "halting at once is right here" in finding(verdict, "ACT steps").reason


@pytest.mark.parametrize(("steps", "reason"), [(1.9, "stuck at the minimum"), (16.0, "stuck at the maximum"),
                                               (6.0, "does not move")])
def test_a_leader_that_fails_its_own_validation_is_named_in_the_headline(tmp_path, steps, reason):
    bad = {"train__q_halt_accuracy": between(0.6, 0.6), "train__halted_steps": between(steps, steps)}
    verdict = verdict_of(*seeds(tmp_path, "o1", final=0.95, **bad), *seeds(tmp_path, "l1", final=0.60))
    assert verdict.answer == ORIGINAL and verdict.validations[0].standing == WORSE
    assert "o1 fails its own validation (Q-head predicts correctness: right in 0.600" in verdict.headline
    assert reason in verdict.headline


@pytest.mark.parametrize(("last", "standing"), [(0.96, BETTER), (0.6, WORSE), (0.82, OPEN)])
def test_the_plans_80_percent_decide_about_the_q_head(tmp_path, last, standing):
    verdict = verdict_of(run(tmp_path, "o1", train__q_halt_accuracy=between(last, last)))
    assert finding(verdict, "Q-head").standing == standing


def test_a_q_head_whose_rows_are_never_right_has_learnt_nothing(tmp_path):
    wrong = {"train__exact_accuracy": between(0.0, 0.01), "train__q_halt_accuracy": between(0.99, 0.99)}
    head = finding(verdict_of(*seeds(tmp_path, "o1", **wrong)), "Q-head")
    assert head.standing == OPEN and "hardly ever right" in head.reason


@pytest.mark.parametrize(("exploration", "max_steps"), [(0.0, 16), (0.5, 16), (0.5, 4), (1.0, 4), (0.7, 1), (1.0, 2)])
def test_the_fewest_steps_are_those_of_a_head_that_always_halts(exploration, max_steps):
    rng = np.random.default_rng(0)
    steps, rows = np.zeros(40_000), np.arange(40_000)
    while len(rows):
        steps[rows] += 1
        least = rng.integers(min(2, max_steps), max_steps + 1, len(rows))
        must = rng.uniform(size=len(rows)) < exploration
        rows = rows[must & (steps[rows] < least)]
    assert fewest_steps(exploration, max_steps) == pytest.approx(steps.mean(), rel=0.02)
