"""The suite runs what it is told, stops where it must, and walks the plan to its end and no further."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from tests.comparison.fabricate import level, online_scalars, original_scalars, write_run
from tools import suite

ROOT = Path(suite.__file__).parents[1]


def train(*arguments):
    return [sys.executable, "-m", "trm_jax.train", *arguments]


# ── Command lines ──


def test_every_preset_size_and_seed_has_its_own_folder():
    assert suite.train_command("o1", "", 0, Path("runs")) == train("--config=configs/o1.py", "--workdir=runs/o1")
    assert suite.train_command("o1", "tiny", 2, Path("runs"), ["--config.optim.lr=1"]) == train(
        "--config=configs/o1.py:tiny", "--workdir=runs/o1-tiny_seed2", "--config.optim.lr=1", "--config.train.seed=2")


def test_the_command_of_a_verdict_is_run_as_it_stands():
    line = "./launch.sh --config=configs/e1.py:tiny '--workdir=my runs/e1-tiny' --config.mode.name=online"
    command = suite.from_launch(line)
    assert command == train("--config=configs/e1.py:tiny", "--workdir=my runs/e1-tiny", "--config.mode.name=online")
    assert suite.workdir_of(command) == "my runs/e1-tiny"


def test_folders_name_their_preset():
    folders = ["runs/o1", "runs/o1_seed2", "runs/o1-tiny", "runs/o1-tiny_seed1", "runs/o1_lr3", "runs/x1", "runs/l22"]
    assert [suite.preset_in(folder, "") for folder in folders] == ["o1", "o1", None, None, None, None, None]
    assert [suite.preset_in(folder, "tiny") for folder in folders] == [None, None, "o1", "o1", None, None, None]


def test_options():
    options, overrides = suite.parse(["--config-suffix=:tiny", "--seeds=0,2,2", "o1", "l1", "o1", "--gpus=0,1/2",
                                      "--config.optim.lr=1"])
    assert (options.size, options.seeds, options.presets) == ("tiny", [0, 2], ["o1", "l1"])
    assert (options.gpus, overrides) == ([["0", "1"], ["2"]], ["--config.optim.lr=1"])
    assert suite.parse(["o1"])[0].gpus == [[]]


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
    monkeypatch.setattr(suite, "run_all", lambda commands, gpus: ran.extend(map(suite.workdir_of, commands)))
    monkeypatch.setattr(suite, "compare", lambda folders, out: compared.extend(folders))
    monkeypatch.setattr(suite.signal, "signal", lambda *_: None)
    suite.main(["--config-suffix=:tiny", "--seeds=0,1", "o1", "l1"])
    assert ran == compared == [f"runs/{name}" for name in ("o1-tiny", "o1-tiny_seed1", "l1-tiny", "l1-tiny_seed1")]


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
            "deadline = time.monotonic() + 60\n"
            "while len(os.listdir(root / 'up')) < 2 and time.monotonic() < deadline: time.sleep(0.01)\n"
            "held.rmdir()\n"
            "sys.exit(time.monotonic() > deadline)")
    (tmp_path / "up").mkdir()
    suite.run_all([script(code, tmp_path, i) for i in range(4)], suite.gpu_groups("0,1/2,3"))
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
    code = (f"from tools import suite\nsuite.train_command = lambda *_: {child!r}\nsuite.main(['o1', 'l1'])")
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "up").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    out, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "suite: interrupted; the same command goes on with what is there\n"
    assert out.count("suite: ") == 1  # the second run was not started
    assert (tmp_path / "saved").exists()


def test_after_a_comparison_it_says_where_to_look(tmp_path, monkeypatch, capsys):
    (tmp_path / "summary.json").write_text('{"verdict": {"answer": "tie"}}')
    commands = []
    monkeypatch.setattr(suite, "run_all", lambda given, gpus: commands.extend(given))
    assert suite.compare(["runs/o1", "runs/l1"], tmp_path) == {"answer": "tie"}
    assert commands == [[sys.executable, "-m", "trm_jax.compare", "runs/o1", "runs/l1", f"--out={tmp_path}"]]
    printed = capsys.readouterr().out
    assert str(tmp_path / "report.html") in printed
    assert "./launch.sh python -m tensorboard.main --logdir=runs" in printed


# ── The plan ──


class Plan:
    """Stand-ins for training and comparing: runs that are written at once, and verdicts that are given."""

    def __init__(self, root):
        self.root = root
        self.ran, self.compared, self.commands = [], [], []

    def say(self, *verdicts):
        """Each verdict is an answer and the runs it asks for."""
        self.verdicts = iter([self.verdict(answer, tiny(*names)) for answer, *names in verdicts])
        return self

    def verdict(self, answer, folders):
        lines = [f"./launch.sh --config=configs/{folder[:2]}.py:tiny --workdir={self.root / folder}"
                 for folder in folders]
        return {"answer": answer, "next_step": {"what": "…", "commands": lines}}

    def walk(self, *arguments):
        options, overrides = suite.parse(["plan", "--config-suffix=:tiny", f"--root={self.root}", *arguments])
        suite.walk_plan(options, overrides, self.run_all, self.compare)

    def run_all(self, commands, gpus):
        folders = [Path(suite.workdir_of(command)) for command in commands]
        self.ran.append([folder.name for folder in folders])
        self.commands += commands
        for folder in folders:
            if not folder.exists():
                config = json.loads(import_module(f"configs.{folder.name[:2]}").get_config("tiny").to_json())
                online = config["mode"]["name"] == "online"
                write_run(folder, online_scalars() if online else original_scalars(), config)

    def compare(self, folders, out):
        self.compared.append([Path(folder).name for folder in folders])
        return next(self.verdicts)


def tiny(*names):
    """`o1_seed1` → `o1-tiny_seed1`."""
    return [f"{name[:2]}-tiny{name[2:]}" for name in names]


def test_the_plan_runs_what_the_verdicts_name_to_the_end(tmp_path, capsys):
    plan = Plan(tmp_path).say(["online", "l2", "l3"], ["online", "e1"], ["online"])
    plan.walk()
    assert plan.ran == [tiny("o1", "l1"), tiny("l2", "l3"), tiny("e1")]
    assert plan.compared == [tiny("l1", "o1"), tiny("l1", "l2", "l3", "o1"), tiny("e1", "l1", "l2", "l3", "o1")]
    assert "the plan is done" in capsys.readouterr().out


def test_the_plan_goes_on_where_it_stands(tmp_path):
    plan = Plan(tmp_path).say(["online", "l2", "l3"], ["online"])
    plan.run_all([suite.train_command(name, "tiny", seed, tmp_path) for name, seed in
                  (("o1", 0), ("l1", 0), ("l1", 1), ("l2", 0), ("e2", 0))], [[]])
    plan.run_all([suite.train_command("o1", "tiny", 1, tmp_path / "elsewhere")], [[]])
    write_run(tmp_path / "o1", original_scalars())  # full size
    write_run(tmp_path / "o2-tiny", {"of no tag that is known": level(1.0)})
    plan.walk()
    assert plan.compared[0] == tiny("e2", "l1", "l1_seed1", "l2", "o1")
    assert plan.compared[1] == tiny("e2", "l1", "l1_seed1", "l2", "l3", "o1")


@pytest.mark.parametrize("answer", ["tie", "undecided"])
def test_the_plan_adds_seeds_until_there_are_enough(tmp_path, answer, capsys):
    plan = Plan(tmp_path).say([answer, "o1_seed1", "l1_seed1"], [answer, "o1_seed2", "l1_seed2"],
                              [answer, "o1_seed3", "l1_seed3"])
    with pytest.raises(suite.SuiteError, match=f"{answer} with 3 seeds of each baseline"):
        plan.walk()
    assert plan.ran == [tiny("o1", "l1"), tiny("o1_seed1", "l1_seed1"), tiny("o1_seed2", "l1_seed2")]
    assert "done" not in capsys.readouterr().out


def test_a_baseline_with_enough_seeds_gets_no_more(tmp_path):
    plan = Plan(tmp_path).say(["tie", "o1_seed2", "l1_seed1"], ["online"])
    plan.run_all([suite.train_command("o1", "tiny", 1, tmp_path)], [[]])
    plan.walk("--max-seeds=2")
    assert plan.ran[-1] == tiny("l1_seed1")


def test_a_decision_after_more_seeds_goes_down_the_branch(tmp_path):
    plan = Plan(tmp_path).say(["undecided", "o1_seed1", "l1_seed1"], ["original", "o2"], ["original"])
    plan.walk()
    assert plan.ran[1:] == [tiny("o1_seed1", "l1_seed1"), tiny("o2")]


def test_unfinished_runs_are_run_once_more_and_no_oftener(tmp_path, capsys):
    plan = Plan(tmp_path).say(["undecided", "o1"], ["undecided", "o1"])
    with pytest.raises(suite.SuiteError, match=r"asks again for .*o1-tiny, which has been run"):
        plan.walk()
    assert plan.ran == [tiny("o1", "l1"), tiny("o1")]
    assert "done" not in capsys.readouterr().out
    plan.say(["undecided", "o1"], ["online"]).walk()


def test_the_plan_starts_with_the_seeds_and_overrides_it_is_given(tmp_path):
    plan = Plan(tmp_path).say(["online"])
    plan.walk("--seeds=0,1", "--config.train.epochs=10")
    assert plan.ran == [tiny("o1", "o1_seed1", "l1", "l1_seed1")]
    assert all("--config.train.epochs=10" in command for command in plan.commands)


def test_a_failed_comparison_stops_the_suite(tmp_path):
    with pytest.raises(suite.SuiteError, match=r"exit code 1 from: .*trm_jax.compare"):
        suite.compare([str(tmp_path)], tmp_path)
