"""The suite runs what it is told, side by side where it may, and stops where it must."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools import suite
from trm_jax.comparison import plan

ROOT = Path(suite.__file__).parents[1]


# ── Command lines ──


def test_every_preset_size_and_seed_has_its_own_folder():
    options = suite.parse(["--config-suffix=:tiny", "--seeds=0,2,2", "o1", "l1", "o1", "--gpus=0,1/2",
                           "--config.optim.lr=1", "--decoder=my decoders/t2"])
    assert (options.size, options.seeds, options.presets) == ("tiny", [0, 2], ["o1", "l1"])
    assert options.gpus == [["0", "1"], ["2"]] and suite.parse(["o1"]).gpus == [[]]
    lines = [plan.arguments(run) for run in suite.planned(options, options.presets)]
    given = ["--config.train.load_pretrained_decoder=my decoders/t2", "--config.optim.lr=1"]
    assert lines[1] == ["--config=configs/o1.py:tiny", "--workdir=runs/o1-tiny_seed2", *given, "--config.train.seed=2"]
    assert [line[1] for line in lines] == [f"--workdir=runs/{name}" for name in (
        "o1-tiny", "o1-tiny_seed2", "l1-tiny", "l1-tiny_seed2")]
    assert suite.parse(["plan"]).seeds == [0, 1, 2] and suite.parse(["plan", "--max-seeds=2"]).seeds == [0, 1]


@pytest.mark.parametrize(("argv", "message"), [
    (["o9"], "unknown preset 'o9'"), (["plan", "o1"], "unknown preset 'plan'"), (["o1", "--what"], "--what"),
    (["o1", "--config=configs/o1.py"], "--config=configs/o1.py"), (["o1", "--config-suffix=:huge"], ":huge"),
    (["o1", "--seeds=one"], "no list of seeds"), (["o1", "--config.train.seed=1"], "--seeds=0,1,2"),
    (["plan", "--config.mode.encode=every_step"], "the presets of the plan differ in"),
])
def test_bad_arguments(argv, message, capsys):
    with pytest.raises(SystemExit):
        suite.parse(argv)
    assert message in capsys.readouterr().err


def test_seeds_are_run_and_compared(monkeypatch):
    ran, compared = [], []
    monkeypatch.setattr(suite, "run_all", lambda commands, gpus: ran.extend(command[4] for command in commands))
    monkeypatch.setattr(suite.compare, "load_runs", lambda folders: folders)
    monkeypatch.setattr(suite.compare, "compare", lambda folders, out: compared.extend(folders))
    monkeypatch.setattr(suite.signal, "signal", lambda *_: None)
    monkeypatch.setattr(suite.os, "chdir", lambda _: None)
    suite.main(["--config-suffix=:tiny", "--seeds=0,1", "o1", "l1"])
    assert compared == [f"runs/{name}" for name in ("o1-tiny", "o1-tiny_seed1", "l1-tiny", "l1-tiny_seed1")]
    assert ran == [f"--workdir={folder}" for folder in compared]


def test_a_run_may_be_several_processes(monkeypatch):
    ran, options = [], suite.parse(["--processes=2", "o1"])
    monkeypatch.setattr(suite, "run_all", lambda commands, gpus: ran.extend(commands))
    suite.start(suite.planned(options, ["o1"]), options)
    assert ran[0][1:6] == ["tools/processes.py", "2", sys.executable, "-m", "trm_jax.train"]


# ── Running ──


def script(code, *arguments):
    lines = f"import os, signal, sys, time\nfrom pathlib import Path\n{code}"
    return [sys.executable, "-c", lines, *map(str, arguments)]


def test_runs_side_by_side_never_share_a_gpu(tmp_path):
    """Each run holds its GPUs as a folder, which can be made once only, until a second run has been there."""
    code = ("root, name = map(Path, sys.argv[1:])\n"
            "held = root / os.environ['CUDA_VISIBLE_DEVICES']\n"
            "held.mkdir()\n"
            "(root / 'up' / name).touch()\n"
            "deadline = time.monotonic() + 600\n"
            "while len(os.listdir(root / 'up')) < 2 and time.monotonic() < deadline: time.sleep(0.01)\n"
            "held.rmdir()\n"
            "sys.exit(time.monotonic() > deadline)")
    (tmp_path / "up").mkdir()
    suite.run_all([script(code, tmp_path, i) for i in range(4)], suite.parse(["o1", "--gpus=0,1/2,3"]).gpus)
    assert len(os.listdir(tmp_path / "up")) == 4


def test_nothing_is_started_after_a_failure_and_what_is_under_way_is_finished(tmp_path):
    bad = script("sys.exit(3)", "bad")
    slow = script("time.sleep(1); Path(sys.argv[1]).touch()", tmp_path / "slow")
    late = script("Path(sys.argv[1]).touch()", tmp_path / "late")
    with pytest.raises(suite.SuiteError) as raised:
        suite.run_all([bad, slow, late, late], [["0"], ["1"]])
    assert [path.name for path in tmp_path.iterdir()] == ["slow"]
    assert str(raised.value).startswith("exit code 3 from: ") and str(raised.value).endswith(" bad")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_the_run_and_is_one_line(tmp_path, number):
    child = script("signal.signal(signal.SIGTERM, lambda *_: (Path(sys.argv[1], 'saved').touch(), sys.exit(143)))\n"
                   "Path(sys.argv[1], 'up').touch(); time.sleep(60)", tmp_path)
    code = (f"from tools import suite\n"
            f"suite.start = lambda runs, _: suite.run_all([{child!r} for _ in runs], [[]])\n"
            f"suite.main(['o1', 'l1'])")
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    deadline = time.monotonic() + 600  # far above what a start takes, also on a busy machine
    while not (tmp_path / "up").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert errors == "suite: interrupted; the same command goes on with what is there\n"
    assert out.count("suite: ") == 1  # the second run was not started
    assert (tmp_path / "saved").exists()


def test_a_comparison_that_fails_stops_the_suite(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "start", lambda *_: (tmp_path / "o1").mkdir())
    monkeypatch.setattr(suite.signal, "signal", lambda *_: None)
    monkeypatch.setattr(suite.os, "chdir", lambda _: None)
    with pytest.raises(SystemExit, match=r"suite: .*no event files"):
        suite.main([f"--root={tmp_path}", "o1"])
