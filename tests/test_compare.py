"""Runs with a known answer get that answer, and the report says it in one file that needs nothing else."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from tests.comparison.fabricate import (
    BATCH_SIZE,
    BATCHES,
    evaluations,
    learning,
    level,
    online_config,
    online_scalars,
    original_config,
    original_scalars,
    slope,
    write_run,
)
from trm_jax import compare
from trm_jax.comparison import table
from trm_jax.comparison.contests import EQUAL, ONLINE, ORIGINAL, UNDECIDED
from trm_jax.comparison.criteria import Criterion, Outcome
from trm_jax.comparison.events import RunError
from trm_jax.comparison.groups import group_runs, smoothing_window
from trm_jax.comparison.plan import TIE
from trm_jax.comparison.verdict import Verdict, judge


def verdict_of(*folders: Path) -> Verdict:
    return judge(group_runs(compare.load_runs([str(folder) for folder in folders], [])))


def criterion(verdict: Verdict, name: str) -> Criterion:
    return next(c for v in verdict.validations for c in v.criteria if name in c.name)


def outcomes(verdict: Verdict) -> list[Outcome]:
    return [validation.outcome for validation in verdict.validations]


def write_pair(folder: Path, original: dict, online: dict, **settings) -> tuple[Path, Path]:
    """O1 and L1 with the given scalars; `settings` change both configurations."""
    return (
        write_run(folder / "o1", original, original_config(**settings)),
        write_run(folder / "l1", online, online_config(**settings)),
    )


# ── Who wins ──


def test_original_better(tmp_path):
    verdict = verdict_of(*write_pair(tmp_path, original_scalars(0.95, 0.15), online_scalars(0.85, 0.3)))
    assert verdict.answer == ORIGINAL
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
    verdict = verdict_of(*write_pair(tmp_path, original_scalars(), online_scalars()))
    assert verdict.answer == TIE
    assert [contest.leader for contest in verdict.contests[:2]] == [EQUAL, EQUAL]
    assert outcomes(verdict) == [
        Outcome.PASS,
        Outcome.FAIL,
    ]  # comparable is enough for one only
    assert "another seed" in verdict.next_step.what


def test_criteria_that_disagree_decide_nothing(tmp_path):
    slow_and_high = original_scalars(0.99, 0.2)
    fast_and_low = online_scalars(0.93, 0.03)
    verdict = verdict_of(*write_pair(tmp_path, slow_and_high, fast_and_low))
    assert verdict.answer == UNDECIDED
    assert "disagree" in verdict.why


def test_the_epochs_of_a_mode_decide_its_speed_not_its_updates(tmp_path):
    """Online makes four updates of a batch: twice as fast in epochs is half as fast in updates."""
    verdict = verdict_of(*write_pair(tmp_path, original_scalars(tau=0.2), online_scalars(tau=0.1)))
    speed = verdict.contests[1]
    assert speed.leader == ONLINE
    assert np.exp(speed.difference.value) == pytest.approx(2, rel=0.1)
    assert "optimiser updates" in speed.evidence
    assert verdict.answer == ONLINE


def test_runs_of_different_length_are_compared_at_the_shorter_ones_end(tmp_path):
    short = {
        tag: (steps[steps <= 1000], values[steps <= 1000])
        for tag, (steps, values) in online_scalars(tau=0.05).items()
    }
    original = write_run(tmp_path / "o1", original_scalars(tau=0.05), original_config())
    online = write_run(tmp_path / "l1", short, online_config(train__epochs=8000))
    verdict = verdict_of(original, online)
    assert verdict.contests[0].leader == EQUAL
    assert any("8,000 epochs" in caveat for caveat in verdict.caveats)


# ── Halting ──


@pytest.mark.parametrize(("steps", "reason"), [(1.0, "stuck at one step"), (16.0, "stuck at the maximum")])
def test_stuck_steps(tmp_path, steps, reason):
    scalars = original_scalars(train__steps=level(steps))
    verdict = verdict_of(*write_pair(tmp_path, scalars, online_scalars()))
    assert criterion(verdict, "steps").outcome == Outcome.FAIL
    assert criterion(verdict, "steps").reason == reason
    assert outcomes(verdict)[0] == Outcome.FAIL


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


def test_a_q_head_with_nothing_to_predict(tmp_path):
    scalars = original_scalars(train__q_halt_accuracy=level(0.99), train__exact_accuracy=level(0.01))
    verdict = verdict_of(*write_pair(tmp_path, scalars, online_scalars()))
    assert criterion(verdict, "Q-head").outcome == Outcome.UNDECIDED
    assert "always" in criterion(verdict, "Q-head").reason


# ── Undecided ──


def test_a_small_difference_of_one_seed_each(tmp_path):
    verdict = verdict_of(
        *write_pair(tmp_path, original_scalars(0.95, noise=0.05), online_scalars(0.93, noise=0.05))
    )
    assert verdict.answer == UNDECIDED
    assert any("one seed" in caveat for caveat in verdict.caveats)
    assert len(verdict.next_step.commands) == 2


def test_missing_tag(tmp_path):
    scalars = original_scalars(train__q_halt_accuracy=None)
    verdict = verdict_of(*write_pair(tmp_path, scalars, online_scalars()))
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


def test_a_few_nans_do_not_matter(tmp_path):
    steps, accuracy = learning(0.95)
    accuracy[::7] = np.nan
    verdict = verdict_of(
        *write_pair(tmp_path, original_scalars(train__accuracy=(steps, accuracy)), online_scalars())
    )
    assert verdict.answer == TIE


def test_one_mode_only(tmp_path):
    run = write_run(tmp_path / "o1", original_scalars(), original_config())
    verdict = verdict_of(run)
    assert verdict.answer == UNDECIDED
    assert criterion(verdict, "Q-head").outcome == Outcome.PASS


# ── Alignment and seeds ──


def test_runs_that_log_at_different_intervals_align(tmp_path):
    same = write_pair(tmp_path / "same", original_scalars(log_every=10), online_scalars(log_every=40))
    assert verdict_of(*same).answer == TIE
    faster = write_pair(
        tmp_path / "faster", original_scalars(tau=0.1, log_every=40), online_scalars(log_every=10)
    )
    verdict = verdict_of(*faster)
    assert np.exp(verdict.contests[1].difference.value) == pytest.approx(0.5, rel=0.1)
    assert verdict.answer == ORIGINAL


def write_seeds(folder: Path, finals: list[float], prefix: str, scalars, config) -> list[Path]:
    return [
        write_run(folder / f"{prefix}_seed{seed}", scalars(final, seed=seed), config(train__seed=seed))
        for seed, final in enumerate(finals)
    ]


def test_seeds_are_grouped(tmp_path):
    original = write_seeds(tmp_path, [0.94, 0.95, 0.96], "o1", original_scalars, original_config)
    online = write_seeds(tmp_path, [0.90, 0.89, 0.91], "l1", online_scalars, online_config)
    groups = group_runs(compare.load_runs([str(run) for run in original + online], []))
    assert [(group.label, group.seeds) for group in groups] == [("o1", 3), ("l1", 3)]
    final = groups[0].final("train/accuracy")
    assert final.mean == pytest.approx(0.943, abs=0.003)
    assert final.spread == pytest.approx(0.01, abs=0.002)
    assert judge(groups).answer == ORIGINAL


def test_seeds_that_overlap_are_undecided(tmp_path):
    """The means lie 0.05 apart, which one seed each would take for a clear difference."""
    original = write_seeds(tmp_path, [0.99, 0.90, 0.96], "o1", original_scalars, original_config)
    online = write_seeds(tmp_path, [0.84, 0.93, 0.93], "l1", online_scalars, online_config)
    assert verdict_of(original[0], online[1]).answer == ORIGINAL
    assert verdict_of(*original, *online).answer == UNDECIDED


def test_runs_without_a_configuration(tmp_path):
    """PyTorch runs: modes by their tags, no epochs, and no guess at them."""
    original = write_run(tmp_path / "torch_original", original_scalars(0.95))
    online = write_run(tmp_path / "torch_online", online_scalars(0.85))
    runs = compare.load_runs([str(original), str(online)], [])
    assert [run.mode for run in runs] == [ORIGINAL, ONLINE]
    assert set(runs[0].axes) == {"updates", "hours"}
    assert set(runs[1].axes) == {"hours"}
    verdict = judge(group_runs(runs))
    assert verdict.contests[0].leader == ORIGINAL
    assert "epochs of torch_original are not known" in verdict.contests[1].reason


# ── Re-encoding ──


def test_re_encoding_that_wins_where_the_cached_context_loses(tmp_path):
    pair = write_pair(tmp_path, original_scalars(0.80, 0.3), online_scalars(0.90, 0.1))
    r1 = write_run(tmp_path / "r1", original_scalars(0.97, 0.1), original_config(mode__encode="every_step"))
    verdict = verdict_of(*pair, r1)
    assert verdict.answer == ONLINE
    assert "r1" in verdict.why
    assert [validation.title[-3:-1] for validation in verdict.validations] == ["o1", "r1", "l1"]


# ── The report and the command line ──


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The report of two seeds of O1 and one of L1 whose label needs escaping."""
    folder = tmp_path_factory.mktemp("runs")
    runs = write_seeds(folder, [0.94, 0.95], "o1", original_scalars, original_config)
    runs.append(write_run(folder / "l1", online_scalars(train__loss=level(np.nan)), online_config()))
    compare.compare([str(run) for run in runs], folder / "report", [f"{runs[-1]}=L1 </script><b>"])
    return folder / "report"


def test_the_page_needs_nothing_but_itself(report):
    page = (report / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//cdn|@import|<link(?![^>]*data:)|src=|fetch\(|url\((?!#)", page)
    assert "</script><b>" not in page
    assert "{{" not in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    assert [group["label"] for group in data["groups"]] == ["o1", "L1 </script><b>"]
    assert all(len(line["mean"]) == 300 for chart in data["charts"] for line in chart["lines"])


def test_the_summary_is_strict_json(report):
    def refuse(constant: str):
        raise AssertionError(f"{constant} is no JSON")

    summary = json.loads((report / "summary.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert summary["verdict"]["answer"] in (ORIGINAL, ONLINE, TIE, UNDECIDED)
    original = summary["groups"][0]
    assert original["final"]["train/accuracy"]["mean"] == pytest.approx(0.94, abs=0.01)
    # 0.945 · (1 − exp(−t / 0.2)) = 0.8 at t = 0.376 of the training
    assert original["reach"]["0.8"]["epochs"][1] == pytest.approx(0.37 * 20_000, rel=0.05)
    assert original["reach"]["0.8"]["updates"][1] == pytest.approx(0.37 * BATCHES, rel=0.05)


def test_the_pictures_are_there(report):
    names = {path.name for path in report.glob("*.png")}
    assert {"overview.png", "learning.png", "halting.png", "held_out_tasks.png"} <= names


def test_table_and_verdict_as_text(tmp_path):
    pair = write_pair(tmp_path, original_scalars(0.95), online_scalars(0.85))
    groups = group_runs(compare.load_runs([str(run) for run in pair], []))
    printed = table.as_text(groups, table.rows(groups, smoothing_window(groups)))
    assert "To 80 % train accuracy" in printed
    assert printed.splitlines()[0].split() == ["o1", "l1"]
    verdict = judge(groups)
    text = compare.verdict_text(verdict)
    assert verdict.headline in text and verdict.next_step.commands[0] in text
    assert sum(line.startswith(("  pass", "  fail", "  undecided")) for line in text.splitlines()) == 6


def test_input_that_cannot_be_compared(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    foreign = write_run(tmp_path / "foreign", {"Loss/train": level(1.0)})
    run = write_run(tmp_path / "o1", original_scalars(), original_config())
    for folders, names, message in [
        ([], [], "name at least one"),
        ([tmp_path / "nowhere"], [], "no such folder"),
        ([empty], [], "no event files"),
        ([tmp_path], [], "holds 2 runs"),
        ([foreign], [], "no known scalar tag"),
        ([run, run], [], "named twice"),
        ([run], ["other=O1"], "PATH=LABEL"),
    ]:
        with pytest.raises(RunError, match=message) as raised:
            compare.load_runs([str(folder) for folder in folders], names)
        assert "\n" not in str(raised.value)


def test_the_command_exits_with_one_line(tmp_path):
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(out=str(tmp_path / "report")), pytest.raises(SystemExit) as raised:
        compare.main(["compare", str(tmp_path / "nowhere")])
    assert str(raised.value).startswith("compare: ") and "\n" not in str(raised.value)


def test_a_comparison_starts_without_jax_or_torch():
    code = (
        "import sys, trm_jax.compare as compare\n"
        "heavy = {'jax', 'flax', 'torch', 'tensorflow', 'trm_jax.arc', 'trm_jax.models'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(compare.__file__).parents[1])
