"""The report says the verdict in one file that needs nothing else."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.comparison.fabricate import (
    BATCHES,
    level,
    online_config,
    online_scalars,
    original_config,
    original_scalars,
    write_run,
)
from tests.comparison.judging import until, write_pair, write_seeds
from trm_jax import compare
from trm_jax.comparison.judgement.contests import UNDECIDED
from trm_jax.comparison.judgement.verdict import judge
from trm_jax.comparison.presentation import table
from trm_jax.comparison.presentation.curves import charts
from trm_jax.comparison.presentation.plots import overview, usual_axis
from trm_jax.comparison.record.events import RunError
from trm_jax.comparison.record.groups import group_runs, smoothing_window
from trm_jax.comparison.record.metrics import COLLAPSE_RATIO, RELATIVE_VAR


def data_of(page: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))


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
    data = data_of(page)
    assert [group["label"] for group in data["groups"]] == ["o1", "L1 </script><b>"]
    assert all(len(line["mean"]) == 300 for chart in data["charts"] for line in chart["lines"])


def test_the_summary_is_strict_json(report):
    def refuse(constant: str):
        raise AssertionError(f"{constant} is no JSON")

    summary = json.loads((report / "summary.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert summary["verdict"]["answer"] == UNDECIDED
    assert summary["verdict"]["contests"][0]["reason"].endswith("diverged: most of its last losses are not finite")
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


def test_whether_the_encoder_says_anything_is_in_the_overview(tmp_path):
    variances = ("relative_var", 0.3), ("collapse_ratio", 0.5)
    tags = {f"train__encoder_{name}": level(value) for name, value in variances}
    tags["train__posterior_mean_var"] = level(0.2)
    run = write_run(tmp_path / "e2", original_scalars(**tags), original_config(encoder__type="hybrid_variational"))
    groups = group_runs(compare.load_runs([str(run)], []))
    printed = table.as_text(groups, table.rows(groups, smoothing_window(groups)))
    assert "context variance / mean square (0: constant)" in printed
    assert "variance of the posterior's mean (0: the latent says nothing)" in printed
    drawn = [chart.metric.tag for chart in overview(charts(groups))]
    assert RELATIVE_VAR in drawn and COLLAPSE_RATIO not in drawn


def test_curves_stand_over_an_axis_on_which_the_runs_are_equally_long(tmp_path):
    original = write_run(tmp_path / "o1", original_scalars(), original_config())
    same = write_run(tmp_path / "l2", online_scalars(), online_config(mode__num_act_steps=8))
    short = write_run(tmp_path / "l1", until(625, online_scalars()), online_config(train__epochs=5000))
    unknown = write_run(tmp_path / "o1_torch", original_scalars())
    for online, axis in ((same, "epochs"), (short, "updates"), (unknown, "updates")):
        groups = group_runs(compare.load_runs([str(original), str(online)], []))
        assert usual_axis(groups) == axis


def test_the_axis_that_was_asked_for(tmp_path):
    pair = [str(run) for run in write_pair(tmp_path, original_scalars(), online_scalars())]
    compare.compare(pair, tmp_path / "report", axis="samples")
    assert data_of((tmp_path / "report" / "report.html").read_text(encoding="utf-8"))["axis"] == "samples"
    unknown = write_run(tmp_path / "torch", original_scalars())
    with pytest.raises(RunError, match="--axis=epochs"):
        compare.compare([str(unknown)], tmp_path / "report", axis="epochs")
