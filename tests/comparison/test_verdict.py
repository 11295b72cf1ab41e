"""Runs with a known answer get that answer."""

import numpy as np
import pytest

from tests.comparison.fabricate import (
    evaluations,
    online_config,
    online_scalars,
    original_config,
    original_scalars,
    slope,
    write_run,
)
from tests.comparison.judging import criterion, outcomes, verdict_of, write_pair, write_three
from trm_jax import compare
from trm_jax.comparison.judgement.contests import EQUAL, ONLINE, ORIGINAL, UNDECIDED
from trm_jax.comparison.judgement.criteria import Outcome
from trm_jax.comparison.judgement.plan import TIE
from trm_jax.comparison.judgement.verdict import judge
from trm_jax.comparison.record.groups import Standing, group_runs


def test_original_better(tmp_path):
    verdict = verdict_of(*write_pair(tmp_path, original_scalars(0.95, 0.15), online_scalars(0.85, 0.3)))
    assert verdict.answer == ORIGINAL
    assert verdict.headline == "The original dynamics train better (provisional: one seed each)"
    assert outcomes(verdict) == [Outcome.PASS, Outcome.FAIL]
    assert [contest.leader for contest in verdict.contests] == [ORIGINAL, ORIGINAL, UNDECIDED]


def test_online_better(tmp_path):
    original = original_scalars(0.85, 0.3, eval__pass_at_2=evaluations(0.1))
    online = online_scalars(0.97, 0.1, eval__pass_at_2=evaluations(0.7))
    verdict = verdict_of(*write_pair(tmp_path, original, online))
    assert verdict.answer == ONLINE
    assert outcomes(verdict) == [Outcome.FAIL, Outcome.PASS]
    assert criterion(verdict, "comparable").outcome == Outcome.FAIL


def test_tie(tmp_path):
    runs = write_three(tmp_path, lambda seed: original_scalars(seed=seed), lambda seed: online_scalars(seed=seed))
    verdict = verdict_of(*runs)
    assert (verdict.answer, verdict.headline) == (TIE, "A tie")
    assert [contest.leader for contest in verdict.contests[:2]] == [EQUAL, EQUAL]
    assert outcomes(verdict) == [Outcome.PASS, Outcome.FAIL]  # comparable is enough for one only
    assert "another seed" in verdict.next_step.what


def test_one_seed_each_is_no_tie(tmp_path):
    verdict = verdict_of(*write_pair(tmp_path, original_scalars(), online_scalars()))
    assert (verdict.answer, verdict.headline) == (UNDECIDED, "Undecided")
    assert verdict.contests[0].difference.noise == pytest.approx(0.05)


def test_criteria_that_disagree_decide_nothing(tmp_path):
    slow_and_high = original_scalars(0.99, 0.2)
    fast_and_low = online_scalars(0.92, 0.03)
    verdict = verdict_of(*write_pair(tmp_path, slow_and_high, fast_and_low))
    assert verdict.answer == UNDECIDED
    assert "disagree" in verdict.why


def test_the_epochs_of_a_mode_decide_its_speed_not_its_updates(tmp_path):
    """Online makes four updates of a batch: twice as fast in epochs is half as fast in updates."""
    runs = write_three(
        tmp_path, lambda seed: original_scalars(tau=0.2, seed=seed), lambda seed: online_scalars(tau=0.1, seed=seed)
    )
    verdict = verdict_of(*runs)
    speed = verdict.contests[1]
    assert speed.leader == ONLINE
    assert np.exp(speed.difference.value) == pytest.approx(2, rel=0.1)
    assert "optimiser updates" in speed.evidence
    assert (verdict.answer, verdict.headline) == (ONLINE, "Online learning trains better")


def test_one_seed_each_decides_large_differences_of_speed_only(tmp_path):
    for tau, leader in ((0.15, UNDECIDED), (0.1, ONLINE)):
        pair = write_pair(tmp_path / str(tau), original_scalars(tau=0.2), online_scalars(tau=tau))
        assert verdict_of(*pair).contests[1].leader == leader


# ── Held-out tasks ──


def test_tokens_of_tasks_that_nobody_solves_decide_nothing(tmp_path):
    unsolved = {"eval__pass_at_2": evaluations(0.0), "eval__exact_accuracy": evaluations(0.0)}
    runs = write_three(
        tmp_path,
        lambda seed: original_scalars(seed=seed, eval__accuracy=evaluations(0.8), **unsolved),
        lambda seed: online_scalars(seed=seed, eval__accuracy=evaluations(0.6), **unsolved),
    )
    verdict = verdict_of(*runs)
    unseen = verdict.contests[2]
    assert (unseen.leader, unseen.reason) == (UNDECIDED, "neither solves a held-out task")
    assert "token accuracy, held out: o1 0.800 ± 0, l1 0.600 ± 0" in unseen.evidence
    assert verdict.answer == TIE


def test_exact_accuracy_decides_where_pass_at_2_is_zero_in_both(tmp_path):
    scalars = {"eval__pass_at_2": evaluations(0.0)}
    pair = write_pair(
        tmp_path,
        original_scalars(eval__exact_accuracy=evaluations(0.9), **scalars),
        online_scalars(eval__exact_accuracy=evaluations(0.1), **scalars),
    )
    assert verdict_of(*pair).contests[2].leader == ORIGINAL


def test_token_accuracy_alone_is_no_held_out_score(tmp_path):
    tokens = {"eval__pass_at_2": None, "eval__accuracy": evaluations(0.8)}
    verdict = verdict_of(*write_pair(tmp_path, original_scalars(**tokens), online_scalars(**tokens)))
    assert verdict.contests[2].reason == "no share of solved held-out tasks was logged of o1 and l1"


# ── Undecided ──


def test_a_small_difference_of_one_seed_each(tmp_path):
    verdict = verdict_of(
        *write_pair(tmp_path, original_scalars(0.95, noise=0.05), online_scalars(0.93, noise=0.05))
    )
    assert verdict.answer == UNDECIDED
    assert any("one seed" in caveat for caveat in verdict.caveats)
    assert len(verdict.next_step.commands) == 2


def test_missing_tag(tmp_path):
    runs = write_three(
        tmp_path,
        lambda seed: original_scalars(seed=seed, train__q_halt_accuracy=None),
        lambda seed: online_scalars(seed=seed),
    )
    verdict = verdict_of(*runs)
    assert criterion(verdict, "Q-head").outcome == Outcome.UNDECIDED
    assert criterion(verdict, "Q-head").reason == "o1 did not log train/q_halt_accuracy"
    assert verdict.answer == TIE  # the other criteria stand


def test_missing_accuracy_leaves_everything_open(tmp_path):
    verdict = verdict_of(*write_pair(tmp_path, original_scalars(train__accuracy=None), online_scalars()))
    assert verdict.answer == UNDECIDED
    assert verdict.contests[1].reason == "o1 did not log train/accuracy"


def test_too_short(tmp_path):
    few = {tag: (steps[:20], values[:20]) for tag, (steps, values) in original_scalars().items()}
    verdict = verdict_of(*write_pair(tmp_path, few, online_scalars(), train__epochs=None))
    assert "too short" in verdict.why


def test_an_unfinished_run_is_to_be_finished(tmp_path):
    half = {tag: (s[s <= 1250], v[s <= 1250]) for tag, (s, v) in original_scalars().items()}
    original, online = write_pair(tmp_path, half, online_scalars())
    verdict = verdict_of(original, online)
    assert verdict.answer == UNDECIDED
    assert "50 %" in verdict.next_step.what


def test_a_run_that_diverged(tmp_path):
    steps, loss = slope(2.0, 0.3)
    loss[steps > 1800] = np.nan
    verdict = verdict_of(
        *write_pair(tmp_path, original_scalars(train__loss=(steps, loss)), online_scalars(0.5))
    )
    assert verdict.answer == UNDECIDED
    assert "diverged" in verdict.why and "diverged" in verdict.next_step.what


def with_holes(scalars: dict) -> dict:
    steps, accuracy = scalars["train/accuracy"]
    return scalars | {"train/accuracy": (steps, np.where(np.arange(len(steps)) % 7, accuracy, np.nan))}


def test_a_few_nans_do_not_matter(tmp_path):
    runs = write_three(
        tmp_path, lambda seed: with_holes(original_scalars(seed=seed)), lambda seed: online_scalars(seed=seed)
    )
    assert verdict_of(*runs).answer == TIE


def test_a_truncated_event_file_still_gives_its_verdict(tmp_path):
    """O1 was killed while it wrote its last records: what is whole decides."""
    runs = write_pair(tmp_path, original_scalars(0.95, 0.15), online_scalars(0.80, 0.3))
    path = next(runs[0].glob("events*"))
    data = path.read_bytes()
    path.write_bytes(data[: int(0.98 * len(data)) + 1])
    groups = group_runs(compare.load_runs([str(run) for run in runs], []))
    assert "ends within a record" in groups[0].runs[0].notes[0]
    assert judge(groups).answer == ORIGINAL


def test_most_of_an_event_file_lost_is_a_run_that_is_not_finished(tmp_path):
    runs = write_pair(tmp_path, original_scalars(0.95, 0.15), online_scalars(0.80, 0.3))
    path = next(runs[0].glob("events*"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 5])
    verdict = verdict_of(*runs)
    assert verdict.answer == UNDECIDED
    assert verdict.contests[0].reason == "o1 is at 20 % of its epochs"


def test_one_mode_only(tmp_path):
    run = write_run(tmp_path / "o1", original_scalars(), original_config())
    verdict = verdict_of(run)
    assert verdict.answer == UNDECIDED
    assert criterion(verdict, "Q-head").outcome == Outcome.PASS


# ── Other runs ──


def test_a_run_that_stands_for_a_baseline_makes_the_answer_provisional(tmp_path):
    r1 = write_run(tmp_path / "r1", original_scalars(0.95, 0.15), original_config(mode__encode="every_step"))
    l1 = write_run(tmp_path / "l1", online_scalars(0.80, 0.3), online_config())
    verdict = verdict_of(r1, l1)
    assert verdict.answer == ORIGINAL
    assert verdict.headline.endswith("(provisional: one seed each, r1 stands for O1)")


def test_runs_of_one_mode_are_set_beside_its_baseline(tmp_path):
    runs = [
        write_run(tmp_path / name, original_scalars(final), original_config(arch__halt_exploration_prob=exploration))
        for name, final, exploration in (("o2", 0.80, 0.3), ("o1", 0.95, 0.5), ("o3", 0.96, 0.7))
    ]
    verdict = verdict_of(*runs)
    assert verdict.answer == UNDECIDED
    assert [(aside.label, aside.against, aside.standing) for aside in verdict.asides] == [
        ("o2", "o1", Standing.BELOW),
        ("o3", "o1", Standing.UNDECIDED),
    ]
    assert "at 20,000 epochs each" in verdict.asides[0].evidence
    assert any("over all rows" in caveat for caveat in verdict.caveats)


def test_re_encoding_that_wins_where_the_cached_context_loses(tmp_path):
    pair = write_pair(tmp_path, original_scalars(0.80, 0.3), online_scalars(0.90, 0.1))
    r1 = write_run(tmp_path / "r1", original_scalars(0.97, 0.1), original_config(mode__encode="every_step"))
    verdict = verdict_of(*pair, r1)
    assert verdict.answer == ONLINE
    assert "r1" in verdict.why
    assert [validation.title[-3:-1] for validation in verdict.validations] == ["o1", "r1", "l1"]
