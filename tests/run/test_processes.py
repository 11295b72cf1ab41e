"""How one of several processes knows its place, whoever started it; and the launcher of several on one machine."""

import signal
import subprocess
import sys
import time

import pytest

from tools import processes
from trm_jax.errors import ConfigError
from trm_jax.run import mesh

SLURM = {"SLURM_NTASKS": "8", "SLURM_PROCID": "3", "SLURM_STEP_NODELIST": "node[1-2]"}
MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
JAX = dict(zip(mesh.VARIABLES, ("host:1", "2", "1"), strict=True))


@pytest.fixture
def joined(monkeypatch):
    """What start_processes hands to JAX: coordinator, number of processes, process."""
    for name in {*mesh.VARIABLES, *SLURM, *MPI, "OMPI_MCA_orte_hnp_uri", "JOB_COMPLETION_INDEX",
                 "KUBERNETES_SERVICE_HOST", "CUDA_VISIBLE_DEVICES"}:
        monkeypatch.delenv(name, raising=False)
    calls = []
    monkeypatch.setattr(mesh.jax.distributed, "initialize", lambda *words, **_: calls.append(words[:3]))
    monkeypatch.setattr(mesh.jax.config, "update", lambda *_: None)
    return calls


@pytest.mark.parametrize(("environment", "flags", "expected"), [
    ({}, (), None),
    (JAX, (), ("host:1", 2, 1)),
    (JAX, ("other:2", 4, 0), ("other:2", 4, 0)),
    ({}, ("other:2", 4, 0), ("other:2", 4, 0)),
    (SLURM, (), (None, 8, 3)),
    (SLURM, ("other:2",), ("other:2", 8, 3)),
    (SLURM | {"SLURM_NTASKS": "1"}, (), None),
    ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, (), None),  # the batch script itself
    (MPI | {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:2"}, (), (None, 2, 1)),
    (MPI, ("other:2",), ("other:2", 2, 1)),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}, (), (None, None, 1)),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, (), None),
])
def test_a_process_knows_its_place(environment, flags, expected, joined, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    mesh.start_processes(*flags)
    assert joined == ([] if expected is None else [expected])


@pytest.mark.parametrize(("environment", "flags", "message"), [
    ({"JAX_COORDINATOR_ADDRESS": "host:1"}, (),
     "one of several processes needs to know more: --num-processes (JAX_NUM_PROCESSES), --process-id (JAX_PROCESS_ID) "
     "is not set"),
    ({}, (None, 2, 0),
     "one of several processes needs to know more: --coordinator (JAX_COORDINATOR_ADDRESS) is not set"),
    (MPI, (), "one of several processes, which Open MPI started, needs to know more: --coordinator "
              "(JAX_COORDINATOR_ADDRESS) is not set"),
    (JAX | {"JAX_NUM_PROCESSES": "two"}, (), "'two' is no number of processes"),
    ({}, ("host:1", 2, 2), "--process-id=2 must be at least 0 and below --num-processes=2"),
    ({}, ("host", 2, 1), "--coordinator=host must be HOST:PORT"),
])
def test_what_is_half_set_is_one_line(environment, flags, message, joined, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as error:
        mesh.start_processes(*flags)
    assert str(error.value) == message and not joined


def test_processes_that_do_not_find_each_other_are_one_line(joined, monkeypatch):
    def initialize(*_, **__):
        raise RuntimeError("DEADLINE_EXCEEDED: Barrier timed out.")

    monkeypatch.setattr(mesh.jax.distributed, "initialize", initialize)
    with pytest.raises(ConfigError, match="do not find each other: DEADLINE_EXCEEDED: Barrier timed out"):
        mesh.start_processes("host:1", 2, 0)


def launch(count, program, *, wait=True):
    command = [sys.executable, "tools/processes.py", str(count), sys.executable, "-uc", program]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if not wait:
        return process
    out, err = process.communicate(timeout=60)
    return process.returncode, sorted(out.splitlines()), err.splitlines()


def test_each_process_knows_its_number_and_their_lines_are_told_apart():
    code, out, err = launch(3, "import os; print(os.environ['JAX_PROCESS_ID'], os.environ['JAX_NUM_PROCESSES'])")
    assert code == 0 and out == ["[0] 0 3", "[1] 1 3", "[2] 2 3"] and not err


def test_when_one_fails_the_others_are_stopped():
    start = time.monotonic()
    code, _, err = launch(2, "import os, sys, time\n"
                             "time.sleep(60) if os.environ['JAX_PROCESS_ID'] == '0' else sys.exit(7)")
    assert code == 7 and err == ["processes: number 1 ended with exit code 7: the others are stopped"]
    assert time.monotonic() - start < 30


def test_signals_reach_all():
    process = launch(2, "import signal, sys, time\nsignal.signal(signal.SIGUSR1, lambda *_: sys.exit('heard'))\n"
                        "print('ready')\ntime.sleep(60)", wait=False)
    ready = [process.stdout.readline() for _ in range(2)]
    assert sorted(ready) == ["[0] ready\n", "[1] ready\n"]
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1 and sorted(err.splitlines()) == ["[0] heard", "[1] heard"]


def test_a_start_without_a_number_or_a_command_says_what_is_wanted(capsys):
    assert processes.main([]) == 0 and "processes.py N COMMAND" in capsys.readouterr().out
    for words in (["two", "true"], ["0", "true"], ["2"]):
        with pytest.raises(SystemExit, match=f"--processes={words[0]} must be a number of processes, at least 1, in f"):
            processes.main(words)


def test_gpus_are_shared_out():
    first, second = processes.environments(2, ["0", "1", "4", "5"], 9)
    assert first == {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:9", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0",
                     "CUDA_VISIBLE_DEVICES": "0,1", "JAX_LOCAL_DEVICE_IDS": "0,1"}
    assert second["CUDA_VISIBLE_DEVICES"] == "4,5"
    with pytest.raises(ValueError, match="--processes=3: 4 GPUs cannot be shared out evenly"):
        processes.environments(3, ["0", "1", "2", "3"], 9)
    assert "CUDA_VISIBLE_DEVICES" not in processes.environments(2, [], 9)[0]
