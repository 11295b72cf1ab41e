"""Several processes that make one run: the same trajectory, and what happens when one of them dies.

    python -m benchmarks.several [--root=FOLDER] [--preset=o1] [--parts=equal,continue,die]

equal: 1 process × 4 devices, 2 × 2 and 4 × 1. continue: a run begun as 2 × 2 goes on as 1 × 1, and then as 2 × 2
again. Both say by how much their losses differ from those of 1 × 4. die: one of two processes is killed; says how
soon the other ends and with which line, and whether the same command then goes on. On CPU, one machine.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.disturbed import QUICK
from tools.processes import free_port
from trm_jax.run.saved import saved_steps

STEPS = 12
SIZES = {"arch.hidden_size": 16, "arch.num_heads": 2, "arch.expansion": 1.0, "arch.L_layers": 1, "arch.H_cycles": 2,
         "arch.L_cycles": 1, "arch.puzzle_emb_len": 2, "arch.halt_max_steps": 3, "encoder.num_layers": 1,
         "encoder.max_demos": 3, "data.max_grid_size": 6, "data.max_train_groups": 4, "data.max_eval_groups": 4,
         "data.global_batch_size": 8, "train.epochs": 2 * STEPS, "train.eval_interval": STEPS,
         "train.log_every_steps": 1, "eval.augmentations": 4, "eval.batch_size": 8, "eval.pass_ks": "1,2",
         "arch.attention": "xla", "arch.remat": "none"}
TAGS = ("train/loss", "grad/total_norm", "eval/accuracy")


def command(preset: str, workdir: Path, **changes: object) -> list[str]:
    """A very small run."""
    return [sys.executable, "-m", "trm_jax.train", f"--config=configs/{preset}.py:tiny", f"--workdir={workdir}",
            *(f"--config.{name}={value}" for name, value in (SIZES | changes).items())]


def environment(root: Path, devices: int) -> dict[str, str]:
    return os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": str(Path.cwd()),
                         "JAX_COMPILATION_CACHE_DIR": str(root / "xla"), **QUICK,
                         "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


def run(root: Path, preset: str, workdir: Path, processes: int, devices: int, **changes: object) -> None:
    """Runs to the end. Raises RuntimeError where it fails."""
    line = [sys.executable, "tools/processes.py", str(processes), *command(preset, workdir, **changes)]
    result = subprocess.run(line, env=environment(root, devices), capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{processes} × {devices}: exit code {result.returncode}\n{result.stdout}{result.stderr}")


def curves(workdir: Path) -> np.ndarray:
    """Every value of TAGS, in order of steps."""
    events = EventAccumulator(str(workdir), size_guidance={"scalars": 0})
    events.Reload()
    return np.concatenate([[point.value for point in events.Scalars(tag)] for tag in TAGS])


def difference(workdir: Path, other: Path) -> str:
    """The largest relative difference between two runs' curves, in words."""
    ours, theirs = curves(workdir), curves(other)
    if ours.shape != theirs.shape:
        raise RuntimeError(f"{workdir} logged {ours.shape} values, {other} {theirs.shape}")
    worst = float(np.max(np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1e-6)))
    return "equal bit for bit" if worst == 0 else f"largest relative difference {worst:.1e}"


def die(root: Path, preset: str, victim: int) -> None:
    """Kills one of two processes in the middle of the run."""
    workdir = root / f"dies-{victim}"
    endless = {"train.epochs": 200_000, "train.eval_interval": 200_000, "checkpoint.every_steps": 5}
    port = free_port()
    pair = [subprocess.Popen([*command(preset, workdir, **endless), f"--coordinator=127.0.0.1:{port}",
                              "--num-processes=2", f"--process-id={i}"], env=environment(root, 1), text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for i in range(2)]
    while not saved_steps(workdir) and all(one.poll() is None for one in pair):
        time.sleep(0.1)
    time.sleep(1.0)
    pair[victim].send_signal(signal.SIGKILL)
    start = time.monotonic()
    said, _ = pair[1 - victim].communicate(timeout=120)
    taken = time.monotonic() - start
    pair[victim].communicate()
    lines = [line for line in said.splitlines() if line.strip()]
    told = next((line for line in lines if "another process of this run" in line), lines[-1])
    print(f"process {victim} of 2 killed: the other ended after {taken:.1f} s with exit code "
          f"{pair[1 - victim].returncode}: {told}", flush=True)
    step = max(saved_steps(workdir))
    run(root, preset, workdir, 2, 1, **endless | {"train.max_steps": step + 5})
    print(f"the same command went on from step {step}", flush=True)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder for the runs; a temporary one where none is given")
    parser.add_argument("--preset", default="o1")
    parser.add_argument("--parts", default="equal,continue,die")
    flags = parser.parse_args(argv)
    root, parts = (flags.root or Path(tempfile.mkdtemp())).absolute(), flags.parts.split(",")
    for old in root.glob("[0-9d]*"):
        shutil.rmtree(old)
    root.mkdir(parents=True, exist_ok=True)
    if {"equal", "continue"} & set(parts):
        run(root, flags.preset, root / "1x4", 1, 4)
    if "equal" in parts:
        for processes, devices in ((2, 2), (4, 1)):
            run(root, flags.preset, root / f"{processes}x{devices}", processes, devices)
            print(f"{flags.preset}: {processes} × {devices} against 1 × 4: "
                  f"{difference(root / f'{processes}x{devices}', root / '1x4')}", flush=True)
    if "continue" in parts:
        for processes, devices, steps in ((2, 2, STEPS // 3), (1, 1, 2 * STEPS // 3), (2, 2, 0)):
            run(root, flags.preset, root / "2x2-1x1-2x2", processes, devices, **{"train.max_steps": steps})
        print(f"{flags.preset}: 2 × 2, then 1 × 1, then 2 × 2 against 1 × 4: "
              f"{difference(root / '2x2-1x1-2x2', root / '1x4')}", flush=True)
    if "die" in parts:
        for victim in (1, 0):
            die(root, flags.preset, victim)


if __name__ == "__main__":
    main(sys.argv[1:])
