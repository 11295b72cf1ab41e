"""Ctrl-C and SIGTERM: the run is saved after the running step, and the same command continues it bit for bit."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from tests.preset_runs import preset
from trm_jax.run.checkpoint import saved_steps
from trm_jax.run.interrupt import Interrupted, stop_request
from trm_jax.run.progress import Progress
from trm_jax.train import train


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_continues_bit_for_bit(number, source, tmp_path, one_device, monkeypatch):
    whole = train(preset("o1", source, max_steps=3), tmp_path / "whole")
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "wait_for", lambda _, batches: (os.kill(os.getpid(), number), next(batches))[1])
        with pytest.raises(Interrupted, match="stopped after step 1 of 3, with a checkpoint") as stop:
            train(preset("o1", source, max_steps=3), tmp_path / "parts")
    assert stop.value.exit_code == 128 + number
    assert saved_steps(tmp_path / "parts") == [1]
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    resumed = train(preset("o1", source, max_steps=3), tmp_path / "parts")
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_the_command_exits_as_one_that_was_interrupted(source, tmp_path):
    overrides = {"data.source": f"json:{source}", "data.max_grid_size": 4, "data.global_batch_size": 8,
                 "arch.hidden_size": 16, "arch.num_heads": 2, "checkpoint.every_steps": 1, "eval.batch_size": 8}
    command = [sys.executable, "-m", "trm_jax.train", "--config=configs/o1.py:tiny", f"--workdir={tmp_path / 'run'}",
               *(f"--config.{name}={value}" for name, value in overrides.items())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not saved_steps(tmp_path / "run") and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "the same command continues" in errors.splitlines()[-1]


def test_before_the_loop_the_first_signal_ends_it_at_once():
    program = ("import os, signal, sys, time\n"
               "from absl import app\n"
               "from trm_jax import terminal, train\n"
               "terminal.start()\n"
               "train.train = lambda *_: (os.kill(os.getpid(), signal.SIGINT), time.sleep(30))\n"
               "sys.argv = ['train', '--config=configs/o1.py:tiny']\n"
               "app.run(train.main, flags_parser=train.parse_flags)\n")
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert result.returncode == 128 + signal.SIGINT
    assert result.stderr.strip() == b"interrupted; the same command goes on from what has been saved"


def test_the_second_signal_ends_the_process_at_once():
    program = ("import os, signal, time\n"
               "from trm_jax.run.interrupt import stop_request\n"
               "with stop_request(listens=True) as stop:\n"
               "    os.kill(os.getpid(), signal.SIGINT)\n"
               "    assert stop.signal == signal.SIGINT\n"
               "    os.kill(os.getpid(), signal.SIGINT)\n"
               "    time.sleep(60)\n")
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False)
    assert result.returncode == -signal.SIGINT and not result.stderr


def test_one_of_several_processes_leaves_the_signals_alone():
    before = signal.getsignal(signal.SIGINT)
    with stop_request(listens=False):
        assert signal.getsignal(signal.SIGINT) is before
