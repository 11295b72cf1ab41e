"""Commands run one after another, or side by side on disjoint GPUs."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
POLL_S = 0.1
PROCESSES = "TRM_PROCESSES"  # set by launch.sh: as so many processes each training run is started


class SuiteError(Exception):
    """Something that stops the suite, told in one line."""


def run_all(commands: Iterable[list[str]], gpus: Sequence[Sequence[str]]) -> None:
    """Runs the commands, as many at once as there are groups of `gpus` (one group of none: the whole machine).

    Raises:
        SuiteError: a run failed; those under way are finished first, and no other is started.
        KeyboardInterrupt: Ctrl-C; all have been stopped.
    """
    waiting, free, failed = list(commands), list(gpus), []
    running: dict[subprocess.Popen, Sequence[str]] = {}
    try:
        while running or (waiting and not failed):
            while waiting and free and not failed:
                group = free.pop(0)
                running[_start(waiting.pop(0), group)] = group
            for process in [process for process in running if process.poll() is not None]:
                free.append(running.pop(process))
                if process.returncode:
                    failed.append(f"exit code {process.returncode} from: {shlex.join(process.args)}")
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        _stop(running)
        raise
    if failed:
        raise SuiteError("; ".join(failed))


def _start(command: list[str], gpus: Sequence[str]) -> subprocess.Popen:
    """Starts a run out of reach of the terminal's Ctrl-C, which is passed on to it by `_stop`, once."""
    if os.environ.get(PROCESSES) and "trm_jax.train" in command:
        command = [sys.executable, "tools/processes.py", os.environ[PROCESSES], *command]
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {})
    print(f"suite: {shlex.join(command)}", flush=True)
    return subprocess.Popen(command, cwd=ROOT, env=environment, process_group=0)


def _stop(processes: Iterable[subprocess.Popen]) -> None:
    """Asks the runs to save and stop, and waits for them; Ctrl-C meanwhile asks again, which ends them at once."""
    for process in processes:
        process.terminate()
    try:
        for process in processes:
            process.wait()
    except KeyboardInterrupt:
        _stop(processes)
