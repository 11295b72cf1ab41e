from pathlib import Path

import pytest

from tools import suite


def verdict(answer, *commands):
    return {"answer": answer, "next_step": {"what": "…", "commands": list(commands)}}


def test_the_next_runs_are_those_of_the_verdict_at_the_suite_s_size():
    line = "./launch.sh --config=configs/e1.py --workdir=runs/e1 --config.mode.name=online"
    (command,) = suite.next_commands(verdict("online", line), ":tiny", Path("runs"))
    assert command[1:] == ["-m", "trm_jax.train", "--config=configs/e1.py:tiny", "--workdir=runs/e1-tiny",
                           "--config.mode.name=online"]


def test_the_tree_ends_and_has_no_branch_for_a_tie():
    assert suite.next_commands(verdict("online"), "", Path("runs")) == []
    with pytest.raises(suite.SuiteError, match="tie"):
        suite.next_commands(verdict("tie", "./launch.sh --config=configs/o1.py"), "", Path("runs"))


def test_the_plan_walks_the_branch_of_the_winner(monkeypatch):
    answers = iter([verdict("original", "./launch.sh --config=configs/o2.py", "./launch.sh --config=configs/o3.py"),
                    verdict("original", "./launch.sh --config=configs/e1.py"), verdict("original")])
    ran, compared = [], []
    monkeypatch.setattr(suite, "run_all", lambda commands, gpus: ran.append([suite.workdir_of(c) for c in commands]))
    monkeypatch.setattr(suite, "compare", lambda folders, out: compared.append(list(folders)) or next(answers))
    suite.walk_plan("", Path("runs"), Path("report"), [], [[]])
    assert ran == [["runs/o1", "runs/l1"], ["runs/o2", "runs/o3"], ["runs/e1"]]
    assert compared[-1] == ["runs/o1", "runs/l1", "runs/o2", "runs/o3", "runs/e1"]


def test_runs_share_the_gpus_and_a_failure_is_named(monkeypatch, capsys):
    seen = []

    def fake(command, env, **_):
        seen.append(env.get("CUDA_VISIBLE_DEVICES"))
        return type("Done", (), {"returncode": int("bad" in command[-1])})

    monkeypatch.setattr(suite.subprocess, "run", fake)
    suite.run_all([["x", f"--workdir={i}"] for i in range(4)], suite.gpu_groups("0,1/2,3"))
    assert set(seen) <= {"0,1", "2,3"}
    with pytest.raises(suite.SuiteError, match="bad failed"):
        suite.run_all([["x", "--workdir=bad"], ["x", "--workdir=good"]], [[]])


@pytest.mark.parametrize(("argv", "message"), [(["o9"], "unknown preset 'o9'"), (["o1", "--what"], "--what")])
def test_bad_arguments(argv, message, capsys):
    with pytest.raises(SystemExit):
        suite.parse(argv)
    assert message in capsys.readouterr().err
