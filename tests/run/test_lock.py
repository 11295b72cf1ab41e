"""Who writes to a folder says so in it; whoever is gone stops nobody."""

import json
import os
import re
import socket
import subprocess
import sys
import time

import pytest

from trm_jax.errors import ConfigError
from trm_jax.run import lock
from trm_jax.run.lock import LOCK_FILE, locked

REFUSED = r"--workdir=.* is in use by process {} on {}, since \d{{4}}-.*; wait for it, or choose another folder"


def holder(folder, **changes):
    """The lock of another process, as it leaves it."""
    content = {"host": "elsewhere", "pid": 7, "born": "1", "since": "2026-01-01T00:00:00+00:00"} | changes
    (folder / LOCK_FILE).write_text(json.dumps(content))


def refused(folder):
    with pytest.raises(ConfigError) as error, locked("--workdir", folder):
        pass
    return str(error.value)


def test_a_second_start_is_told_who_holds_the_folder(tmp_path):
    with locked("--workdir", tmp_path):
        assert re.fullmatch(REFUSED.format(os.getpid(), socket.gethostname()), refused(tmp_path))
        assert "in use" in refused(tmp_path)  # the refusal leaves the lock as it was
    with locked("--workdir", tmp_path):
        pass
    assert (tmp_path / LOCK_FILE).read_text() == ""


def test_the_lock_of_a_process_that_was_killed_stops_nobody(tmp_path):
    program = ("import sys, time\nfrom pathlib import Path\nfrom trm_jax.run.lock import locked\n"
               "with locked('--workdir', Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n")
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        assert f"process {process.pid} on " in refused(tmp_path)
        process.kill()
    with locked("--workdir", tmp_path):
        pass


def test_another_hosts_lock_holds_while_it_gives_signs_of_life(tmp_path, monkeypatch):
    holder(tmp_path)
    os.utime(tmp_path / LOCK_FILE, (1, 1))
    with locked("--workdir", tmp_path):
        pass  # an old one, at once
    monkeypatch.setattr(lock, "LISTEN_S", 0.1)
    holder(tmp_path)
    with locked("--workdir", tmp_path):
        pass  # a new one that has fallen silent
    holder(tmp_path)
    monkeypatch.setattr(lock.time, "sleep", lambda _: os.utime(tmp_path / LOCK_FILE, (time.time() + 1,) * 2))
    assert "process 7 on elsewhere" in refused(tmp_path)


def test_without_the_kernels_locks_this_hosts_processes_are_known(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_flock", lambda _: None)
    here, parent = socket.gethostname(), os.getppid()
    holder(tmp_path, host=here, pid=parent, born=lock._born(parent))
    assert f"process {parent} on {here}" in refused(tmp_path)
    holder(tmp_path, host=here, pid=parent, born="1")  # another process with the number of one that is gone
    with locked("--workdir", tmp_path):
        pass
    (tmp_path / LOCK_FILE).write_text("{")
    with locked("--workdir", tmp_path):
        pass


def test_signs_of_life_are_given(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_S", 0.01)
    with locked("--workdir", tmp_path):
        os.utime(tmp_path / LOCK_FILE, (1, 1))
        until = time.monotonic() + 10
        while (tmp_path / LOCK_FILE).stat().st_mtime == 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert (tmp_path / LOCK_FILE).stat().st_mtime > 1


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    assert "cannot be written to (.lock: No such file or directory)" in refused(tmp_path / "none")
