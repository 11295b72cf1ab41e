"""Very small runs in processes of their own, to be disturbed: what `kills` and `faults` share.

A run is forked off a process that has imported everything and has not touched a device, so that a start costs seconds.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from trm_jax import terminal
from trm_jax.evaluation.evaluator import Evaluator
from trm_jax.run.files import write
from trm_jax.run.interrupt import Interrupted
from trm_jax.run.progress import Progress
from trm_jax.run.saved import saved_steps
from trm_jax.train import train

PRESETS = ("o1", "r1", "l1")  # the three dynamics
STEPS = 36
DIGEST = "digest.json"  # of the final state, written beside the checkpoints
# Programs are compiled in the quickest way, by a seventh of the work.
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false"}
PHASE = ".phase"  # suffix of the file beside the run's folder, whose disk may be full, that says what the process is at
STARTING, TRAINING, EVALUATING = "start-up or compilation", "training", "an evaluation"



def prepare(root: Path) -> None:
    """Makes `root` the folder of the runs: tasks to train on, and a cache of what has been compiled."""
    jax.config.update("jax_compilation_cache_dir", str(root / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    os.environ.update(QUICK)
    jax.config.update("jax_disable_most_optimizations", True)
    rng = np.random.default_rng(0)
    for subset in ("training", "evaluation"):
        (root / "tasks" / subset).mkdir(parents=True, exist_ok=True)
        for i in range(4):
            grids = rng.integers(1, 9, (4, 3, 3))
            pairs = [{"input": grid.tolist(), "output": ((grid + i) % 10).tolist()} for grid in grids]
            file = root / "tasks" / subset / f"{subset[0]}{i}.json"
            file.write_text(json.dumps({"train": pairs[:3], "test": pairs[3:]}))


def config(preset: str, root: Path, **changes: Any) -> ConfigDict:
    """A run of STEPS steps of a model of a few ten thousand parameters on the tasks in `root`, scored three times."""
    found = importlib.import_module(f"configs.{preset}").get_config("tiny")
    found.arch.update(hidden_size=16, num_heads=2, expansion=1.0, L_layers=1, H_cycles=2, L_cycles=1, puzzle_emb_len=2,
                      halt_max_steps=3, attention="xla", remat="none")
    found.mode.num_act_steps = 2
    found.encoder.update(num_layers=1, set_layers=1, max_demos=3)
    found.optim.update(lr=1e-3, lr_warmup_steps=2)
    found.data.update(source=f"json:{root / 'tasks'}", max_grid_size=4, global_batch_size=8)
    found.train.update(epochs=2 * STEPS, eval_interval=2 * STEPS // 3, log_every_steps=3)
    found.eval.update(augmentations=48, batch_size=8, pass_ks=(1, 2))
    found.checkpoint.update(every_steps=5, keep=2)
    found.update_from_flattened_dict(changes)
    return found


@dataclasses.dataclass
class Process:
    """A run under way; its output is in `log`."""

    pid: int
    workdir: Path
    log: Path
    waited: float = 0.0  # seconds, but for those in which nothing at all ran here

    def ended(self) -> int | None:
        """Exit status as a shell tells it, None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return None if pid == 0 else self._code(status)

    def wait(self, seconds: float = 900.0) -> int:
        """Waits for its end. Raises TimeoutError where it does not come: nothing may hang."""
        self.waited, last = 0.0, time.monotonic()
        while self.waited < seconds:
            code = self.ended()
            if code is not None:
                return code
            time.sleep(0.02)
            now = time.monotonic()
            self.waited += min(now - last, 0.1)
            last = now
        self.signal(signal.SIGKILL)
        raise TimeoutError(f"{self.workdir} hangs; see {self.log}")

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def phase(self) -> str:
        """One of STARTING, until a step has been made, TRAINING and EVALUATING."""
        try:
            return self.workdir.with_suffix(PHASE).read_text() or TRAINING
        except OSError:
            return STARTING

    @staticmethod
    def _code(status: int) -> int:
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code


def start(settings: ConfigDict, workdir: Path, before: Callable[[], None] = lambda: None) -> Process:
    """Begins or continues a run; `before` is called in its process first."""
    log = workdir.with_suffix(".log")
    with contextlib.suppress(OSError):
        workdir.with_suffix(PHASE).unlink()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return Process(pid, workdir, log)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    code = 1
    try:
        before()
        code = _run(settings, workdir)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        os._exit(code)


def whole(settings: ConfigDict, workdir: Path) -> dict[str, str]:
    """Runs to the end, undisturbed from here on; the digest of every array of the state and of the last scores."""
    if not (workdir / DIGEST).exists() and (code := start(settings, workdir).wait()):
        raise RuntimeError(f"exit code {code}; see {workdir.with_suffix('.log')}")
    return json.loads((workdir / DIGEST).read_text())


def log_of(workdir: Path) -> str:
    """What all starts of a run have said."""
    return workdir.with_suffix(".log").read_text(encoding="utf-8", errors="replace")


def latest(workdir: Path) -> int:
    """Step of the latest checkpoint, 0 without any."""
    return max(saved_steps(workdir), default=0)


def _run(settings: ConfigDict, workdir: Path) -> int:
    terminal.start()
    _tell_phases(workdir.with_suffix(PHASE))
    try:
        state = train(settings, workdir)
    except Interrupted as stop:
        print(stop, flush=True)
        return stop.exit_code
    scores = workdir / "checkpoints" / str(int(state.step)) / "scores.json"
    if not scores.exists():  # the end that train.max_steps sets is none
        return 0
    digests = {jax.tree_util.keystr(path): hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
               for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
    write(workdir / DIGEST, json.dumps(digests | {"scores": scores.read_text()}))
    return 0


def _tell_phases(file: Path) -> None:
    """From here on `file` says what this process is at."""
    answers, add = Evaluator.run, Progress.add

    def scored(*args: Any) -> Iterator[Any]:
        before = file.read_text() if file.exists() else None
        file.write_text(EVALUATING)
        try:
            yield from answers(*args)
        finally:
            file.write_text(before) if before else file.unlink()

    def stepped(*args: Any) -> None:
        add(*args)
        file.write_text(TRAINING)

    Evaluator.run, Progress.add = scored, stepped  # type: ignore[method-assign, assignment]
