"""Paths as people write them, whatever flag they stand in."""

from pathlib import Path

import pytest

from tools import convert_torch_ckpt, suite
from trm_jax import compare, evaluate, solve
from trm_jax.comparison.events import RunError
from trm_jax.errors import ConfigError
from trm_jax.evaluation.trained import load_trained
from trm_jax.paths import as_name, user_path
from trm_jax.run.start import find


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RUNS", "x/runs")
    return tmp_path


def test_a_path_begins_at_home_and_holds_variables(home):
    assert user_path("~/$RUNS/o1") == home / "x" / "runs" / "o1"
    assert user_path(Path("~") / "${RUNS}") == home / "x" / "runs"
    assert [user_path(text) for text in ("runs/~", "~nobody.here/a")] == [Path("runs/~"), Path("~nobody.here/a")]


def test_any_text_names_a_folder():
    assert as_name("json:data/a b") == "json-data-a-b" and as_name("数字/é") == "数字-é"
    assert len(as_name("数" * 300).encode()) < 255 and as_name("数" * 300) != as_name("数" * 301)


def test_every_flag_that_takes_a_path_reads_it_so(home):
    flags, _ = evaluate.parse(["--workdir=~/a", "--out=~/b"])
    assert [flags.workdir, flags.out] == [home / "a", home / "b"]
    flags, _ = solve.parse(["t", "--workdir=~/a", "--png=~/b.png", "--json=~/c.json"])
    assert [flags.workdir, flags.png, flags.json] == [home / "a", home / "b.png", home / "c.json"]
    options = suite.parse(["o1", "--root=~/$RUNS", "--out=~/report"])
    assert [options.root, options.out] == [home / "x" / "runs", home / "report"]
    flags = convert_torch_ckpt._parser().parse_args(["~/a", "~/b"])
    assert [flags.src, flags.dst] == [home / "a", home / "b"]
    with pytest.raises(RunError, match=f"{home / 'nowhere'}"):
        compare.load_runs(["~/nowhere"], ["~/nowhere=O1"])
    with pytest.raises(ConfigError, match=f"no converted checkpoint at {home / 'nowhere'}"):
        find("~/nowhere")
    with pytest.raises(ConfigError, match=f"{home / 'nowhere'} holds no run"):
        load_trained("~/nowhere", None)
