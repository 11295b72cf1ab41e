"""How far something is: plain lines where there is no terminal."""

import pytest

from trm_jax.run import bar
from trm_jax.run.bar import Bar


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [0.0]
    monkeypatch.setattr(bar.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_there_is_a_line_now_and_then(clock, capsys):
    with Bar(1000, "evaluate", "row", initial=200) as rows:
        for _ in range(40):
            clock[0] += 2.0
            rows.update(10)
            rows.facts(loss="0.5")
    err = capsys.readouterr().err
    assert "\r" not in err and "\x1b" not in err
    assert err.splitlines() == [
        "evaluate: 350/1000 rows, 5/s, 02:10 left, loss=0.5",
        "evaluate: 500/1000 rows, 5/s, 01:40 left, loss=0.5",
        "evaluate: 600/1000 rows, 5/s, 01:20 left, loss=0.5"]


def test_a_hidden_one_says_nothing_nor_does_a_short_one_that_is_not_kept(clock, capsys):
    with Bar(10, "evaluate", "row", show=False) as rows, Bar(10, "sha256", "byte", keep=False) as digest:
        digest.update(10)
        clock[0] += 100.0
        rows.update(10)
    assert not capsys.readouterr().err


def test_on_a_terminal_it_is_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(bar.sys.stderr, "isatty", lambda: True, raising=False)
    with Bar(10, "evaluate", "row") as rows:
        rows.update(10)
    assert "10/10" in capsys.readouterr().err
