"""Runs that differ in length are compared where that is fair, or not at all."""

import numpy as np
import pytest

from tests.comparison.fabricate import (
    online_config,
    online_scalars,
    original_config,
    original_scalars,
    write_run,
)
from tests.comparison.judging import until, verdict_of, write_pair, write_three
from trm_jax.comparison.judgement.contests import ORIGINAL, UNDECIDED
from trm_jax.comparison.judgement.plan import TIE


def test_runs_with_as_many_updates_are_compared_at_their_ends(tmp_path):
    """O1 makes 2,500 updates in 20,000 epochs and L1 in 5,000: at 5,000 epochs O1 is not annealed yet."""
    original = write_run(tmp_path / "o1", original_scalars(0.95), original_config(optim__lr_min_ratio=0.05))
    short = until(625, online_scalars(0.80, 0.04))
    online = write_run(tmp_path / "l1", short, online_config(optim__lr_min_ratio=0.05, train__epochs=5000))
    verdict = verdict_of(original, online)
    accuracy, _, unseen = verdict.contests
    assert accuracy.leader == ORIGINAL
    assert accuracy.difference.value == pytest.approx(0.95 - 0.80, abs=0.015)
    assert "at 2,500 updates each" in accuracy.evidence
    assert "pass@2: o1 0.300, l1 0.120 at 2,500 updates each" in unseen.evidence
    assert any("at 2,500 updates each" in caveat for caveat in verdict.caveats)
    assert any("l1 is not at the plan's scale: 32 groups for 5,000 epochs" in caveat for caveat in verdict.caveats)


@pytest.mark.parametrize(("lr_min_ratio", "leader"), [(1.0, ORIGINAL), (0.05, UNDECIDED)])
def test_others_are_cut_unless_that_spoils_a_schedule(tmp_path, lr_min_ratio, leader):
    schedule = {"optim__lr_min_ratio": lr_min_ratio}
    original = write_run(tmp_path / "o1", original_scalars(tau=0.05), original_config(**schedule))
    short = until(1000, online_scalars(0.80, 0.05))
    online = write_run(tmp_path / "l1", short, online_config(train__epochs=8000, **schedule))
    verdict = verdict_of(original, online)
    assert verdict.contests[0].leader == leader
    assert "at 8,000 epochs each" in verdict.contests[0].evidence
    if leader == UNDECIDED:
        reason = "o1 would be cut at 8,000 epochs, before its learning rate has come down"
        assert [verdict.contests[i].reason for i in (0, 2)] == [reason, reason]
        assert any(reason in caveat for caveat in verdict.caveats)
    else:
        assert any("8,000 epochs each; o1 went on beyond that" in caveat for caveat in verdict.caveats)


def test_a_run_without_a_common_axis_is_not_judged(tmp_path):
    """A PyTorch run that was killed at 20 % looks like a complete one."""
    original = write_run(tmp_path / "o1_torch", until(500, original_scalars(0.95, 0.3)))
    online = write_run(tmp_path / "l1_torch", online_scalars(0.95))
    verdict = verdict_of(original, online)
    assert verdict.answer == UNDECIDED
    assert verdict.contests[0].reason.startswith("there is no axis")
    assert "the epochs of o1_torch are not known" in verdict.contests[0].reason


def test_asides_say_where_they_are_taken(tmp_path):
    pair = write_pair(tmp_path, original_scalars(0.95), online_scalars(0.80))
    l2 = write_run(
        tmp_path / "l2",
        until(1250, online_scalars(0.80)),
        online_config(train__epochs=10_000, mode__num_act_steps=8),
    )
    to_original, to_online = verdict_of(*pair, l2).asides
    assert "at 10,000 epochs each" in to_original.evidence
    assert "at 10,000 updates each" in to_online.evidence


def test_runs_that_log_at_different_intervals_align(tmp_path):
    same = write_three(
        tmp_path / "same",
        lambda seed: original_scalars(log_every=10, seed=seed),
        lambda seed: online_scalars(log_every=40, seed=seed),
    )
    assert verdict_of(*same).answer == TIE
    faster = write_three(
        tmp_path / "faster",
        lambda seed: original_scalars(tau=0.1, log_every=40, seed=seed),
        lambda seed: online_scalars(log_every=10, seed=seed),
    )
    verdict = verdict_of(*faster)
    assert np.exp(verdict.contests[1].difference.value) == pytest.approx(0.5, rel=0.1)
    assert verdict.answer == ORIGINAL
