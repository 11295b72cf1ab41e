"""Signals: the run is saved after the running step, and the same command continues it bit for bit."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.preset_runs import assert_same_bits, devices, preset
from tools.processes import free_port
from trm_jax.evaluation.evaluator import Evaluator
from trm_jax.run import saved
from trm_jax.run.interrupt import SIGNALS, Interrupted
from trm_jax.run.progress import Progress
from trm_jax.run.saved import saved_steps
from trm_jax.train import train


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """The state after three steps that no signal has stopped."""
    with devices(1):
        return train(preset("o1", source, max_steps=3), tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_the_run_continues_bit_for_bit(number, whole, source, tmp_path, one_device, monkeypatch):
    handlers = [signal.getsignal(each) for each in SIGNALS]
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "wait_for", lambda _, batches: (os.kill(os.getpid(), number), next(batches))[1])
        with pytest.raises(Interrupted, match="stopped after step 1 of 3, with a checkpoint") as stop:
            train(preset("o1", source, max_steps=3), tmp_path / "parts")
    assert stop.value.exit_code == 128 + number
    assert saved_steps(tmp_path / "parts") == [1]
    assert [signal.getsignal(each) for each in SIGNALS] == handlers
    assert_same_bits(whole, train(preset("o1", source, max_steps=3), tmp_path / "parts"))


def test_a_signal_to_one_of_two_processes_saves_and_both_say_how_to_go_on(source, tmp_path):
    overrides = {"data.source": f"json:{source}", "data.max_grid_size": 4, "data.global_batch_size": 8,
                 "arch.hidden_size": 16, "arch.num_heads": 2, "arch.expansion": 1.0, "arch.L_layers": 1,
                 "arch.H_cycles": 1, "arch.L_cycles": 1, "arch.puzzle_emb_len": 2, "arch.attention": "xla",
                 "arch.remat": "none", "checkpoint.every_steps": 1, "eval.batch_size": 8}
    # The preset whose step is compiled in the shortest time, by forks of a command that has imported what it needs.
    program = ("import os, sys\n"
               "from absl import app\n"
               "from trm_jax import terminal, train\n"
               "for number in range(2):\n"
               "    if not (child := os.fork()):\n"
               "        terminal.start()\n"
               "        sys.argv = ['train', *sys.argv[1:], f'--process-id={number}']\n"
               "        app.run(train.main, flags_parser=train.parse_flags)\n"
               "print(child, flush=True)\n"
               "print(*(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2)))\n")
    command = [sys.executable, "-W", "ignore", "-c", program, "--config=configs/t1.py:tiny",
               f"--workdir={tmp_path / 'run'}", *(f"--config.{name}={value}" for name, value in overrides.items()),
               f"--coordinator=127.0.0.1:{free_port()}", "--num-processes=2"]
    with open(tmp_path / "printed", "w") as printed, open(tmp_path / "told", "w") as told:
        started = subprocess.Popen(command, stdout=printed, stderr=told, env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"})
    deadline = time.monotonic() + 240
    while not saved_steps(tmp_path / "run") and time.monotonic() < deadline:
        time.sleep(0.05)
    last = next(line for line in (tmp_path / "printed").read_text().splitlines() if line.isdecimal())
    os.kill(int(last), signal.SIGUSR1)
    assert started.wait(timeout=120) == 0
    printed, told = ((tmp_path / name).read_text().splitlines() for name in ("printed", "told"))
    assert printed[-1] == " ".join([str(128 + signal.SIGUSR1)] * 2), told
    assert not any("Traceback" in line for line in told)
    (line,) = {line for line in told if line.startswith("stopped")}
    step = re.fullmatch(r"stopped after step (\d+) of \d+, with a checkpoint; the same command continues", line)
    assert step and told.count(line) == 2, told
    assert saved_steps(tmp_path / "run")[-1] == int(step[1])


def test_before_the_loop_the_first_signal_ends_it_at_once():
    """Two of them, each told to a fork of a command that has imported what it needs."""
    program = ("import os, signal, sys, time\n"
               "from absl import app\n"
               "from trm_jax import terminal, train\n"
               "for number in (signal.SIGINT, signal.SIGUSR1):\n"
               "    if os.fork():\n"
               "        print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)\n"
               "        continue\n"
               "    terminal.start(), terminal.start()\n"  # python -m trm_jax comes by twice
               "    train.train = lambda *_: (os.kill(os.getpid(), number), time.sleep(30))\n"
               "    sys.argv = ['train', '--config=configs/o1.py:tiny']\n"
               "    app.run(train.main, flags_parser=train.parse_flags)\n")
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True,
                            check=False)
    assert result.stdout.split() == [str(128 + number) for number in (signal.SIGINT, signal.SIGUSR1)]
    assert result.stderr.splitlines() == ["", "interrupted; the same command goes on from what has been saved"] * 2


def test_a_signal_breaks_off_an_evaluation_whose_state_is_saved_and_which_comes_first_then(
        source, tmp_path, one_device, monkeypatch, capsys):
    workdir, config = tmp_path / "run", preset("o1", source, max_steps=2)  # scored once, behind the last
    answers = Evaluator.run

    def interrupted(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        yield from answers(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "run", interrupted)
        with pytest.raises(Interrupted, match="stopped after step 2 of 2, with a checkpoint"):
            train(config, workdir)
    assert saved_steps(workdir) == [2] and not saved.scores(workdir)
    assert "eval/" not in capsys.readouterr().out
    assert int(train(config, workdir).step) == 2
    assert "step 2: eval/" in capsys.readouterr().out and "eval/pass@2" in saved.scores(workdir)[2]
    train(config, workdir)
    assert "eval/" not in capsys.readouterr().out  # it is scored once


def ended_by(program, *args):
    program = f"import os, signal, time\nfrom trm_jax.run.interrupt import stop_request\n{program}"
    result = subprocess.run([*args, sys.executable, "-c", program], capture_output=True, timeout=50, check=False)
    return result.returncode, result.stdout.decode(), result.stderr.decode()


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_the_second_signal_ends_the_process_at_once(number):
    code, out, err = ended_by("with stop_request() as stop:\n"
                              f"    os.kill(os.getpid(), {number})\n"
                              "    print(stop.signal, flush=True)\n"
                              f"    os.kill(os.getpid(), {signal.SIGTERM if number == signal.SIGHUP else number})\n"
                              "    time.sleep(60)\n")
    assert code == -(signal.SIGTERM if number == signal.SIGHUP else number)
    assert out == f"{number:d}\n" and not err


def test_a_terminal_that_is_gone_is_one_signal_however_many_tell_of_it():
    assert ended_by("with stop_request() as stop:\n"
                    "    [os.kill(os.getpid(), signal.SIGHUP) for _ in range(3)]\n"
                    "    print(stop.signal)\n") == (0, "1\n", "")


def test_the_second_signal_ends_a_process_that_waits_inside_a_library():
    code, _, err = ended_by("import hashlib, threading\n"
                            "def twice():\n"
                            "    for _ in range(2):\n"
                            "        time.sleep(0.5)\n"
                            "        os.kill(os.getpid(), signal.SIGINT)\n"
                            "with stop_request():\n"
                            "    threading.Thread(target=twice).start()\n"
                            "    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)\n")
    assert code == 128 + signal.SIGINT and not err


COMPILES = ("import hashlib, threading\n"
            "from trm_jax import terminal\n"
            "from trm_jax.run import interrupt\n"
            "{start}\n"
            "interrupt.PATIENCE_S = interrupt.GRACE_S = 0.1\n"
            "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
            "with stop_request() as stop:\n"
            "    stop.parting = lambda: {parting}\n"
            "    hashlib.pbkdf2_hmac('sha256', b'', b'', {rounds})\n"
            "    print(stop.signal)\n")


def test_a_signal_waits_for_no_compiler_where_nothing_would_be_lost():
    start = time.perf_counter()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**5)
    command, long, short = "terminal.start()", 10**9, round(1.5e5 / (time.perf_counter() - start))  # 1.5 s here
    assert ended_by(COMPILES.format(start=command, parting="'stopped'", rounds=long)) == (143, "", "\nstopped\n")
    assert ended_by(COMPILES.format(start=command, parting=None, rounds=short)) == (0, "15\n", "")
    assert ended_by(COMPILES.format(start="", parting="'stopped'", rounds=short)) == (0, "15\n", "")  # of a library


def test_what_was_ignored_at_the_start_stays_so():
    assert ended_by("with stop_request() as stop:\n"
                    "    os.kill(os.getpid(), signal.SIGHUP)\n"
                    "    print(stop.signal)\n", "nohup") == (0, "0\n", "")
