"""Runs that are killed at random moments, and runs that are asked to stop: nothing may be lost.

    python -m benchmarks.kills [--kills=50] [--signals=20] [--presets=o1,r1,l1] [--root=FOLDER] [--seed=0]

Kills (SIGKILL) come at any moment from start-up to the end, saves and evaluations included; then the same run is
started again. Signals are SIGTERM, SIGHUP and SIGUSR1 in turn, every second one while the run is scored: each has to
end the process with a checkpoint of its last step within 10 s. However often a run was disturbed, its end has to equal
the undisturbed run's bit for bit: every array of the state, and the scores.
"""

import argparse
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks import disturbed
from benchmarks.disturbed import EVALUATING, STEPS, TRAINING
from trm_jax.run.saved import UNFINISHED

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
LIMIT_S = 10.0


def kill(preset: str, root: Path, count: int, rng: random.Random, undisturbed: dict, seconds: float) -> Counter:
    """`count` kills of runs of one preset; how many came when. Raises RuntimeError where an end differs."""
    when: Counter = Counter()
    killed = runs = 0
    while killed < count:
        workdir = root / f"{preset}-killed-{runs}"
        runs += 1
        while killed < count:
            process = disturbed.start(disturbed.config(preset, root), workdir)
            until = time.monotonic() + rng.uniform(0.0, seconds)
            while (code := process.ended()) is None and time.monotonic() < until:
                time.sleep(0.01)
            if code is not None:
                break
            saving = any((workdir / "checkpoints").glob(f"*{UNFINISHED}"))
            moment = "a save" if saving else process.phase
            process.signal(signal.SIGKILL)
            process.wait()
            when[moment] += 1
            killed += 1
        _compare(preset, disturbed.whole(disturbed.config(preset, root), workdir), undisturbed, workdir)
    return when


def stop(preset: str, root: Path, count: int, rng: random.Random, undisturbed: dict, seconds: float) -> list[float]:
    """`count` signals to runs of one preset; seconds from each to the end of its process."""
    taken: list[float] = []
    workdir, runs = root / f"{preset}-stopped-0", 0
    while len(taken) < count:
        number, in_evaluation = SIGNALS[len(taken) % 3], len(taken) % 2 == 0
        process = disturbed.start(disturbed.config(preset, root), workdir)
        until = time.monotonic() + rng.uniform(0.0, seconds / 3)
        while (code := process.ended()) is None:
            phase = process.phase
            if phase == EVALUATING if in_evaluation else phase == TRAINING and time.monotonic() > until:
                break
            time.sleep(0.002)
        if code is not None:  # it came to its end before
            _compare(preset, disturbed.whole(disturbed.config(preset, root), workdir), undisturbed, workdir)
            runs += 1
            workdir = root / f"{preset}-stopped-{runs}"
            continue
        process.signal(number)
        code = process.wait()
        taken.append(process.waited)
        said = re.findall(r"stopped after step (\d+) of \d+, with a checkpoint", disturbed.log_of(workdir))
        latest = disturbed.latest(workdir)
        saved = latest == STEPS or (code == 128 + number and said and int(said[-1]) == latest)
        if not saved or taken[-1] > LIMIT_S:
            raise RuntimeError(f"{signal.Signals(number).name}: exit code {code} after {taken[-1]:.1f} s, checkpoint "
                               f"{latest}; see {process.log}")
    _compare(preset, disturbed.whole(disturbed.config(preset, root), workdir), undisturbed, workdir)
    return taken


def _compare(preset: str, found: dict, undisturbed: dict, workdir: Path) -> None:
    different = [name for name in undisturbed if found.get(name) != undisturbed[name]]
    if different:
        raise RuntimeError(f"{workdir} does not end as the undisturbed run: {', '.join(different[:5])}")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--signals", type=int, default=20)
    parser.add_argument("--presets", default=",".join(disturbed.PRESETS))
    parser.add_argument("--root", type=Path, help="folder for the runs; a temporary one where none is given")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args(argv)
    root = (flags.root or Path(tempfile.mkdtemp())).absolute()
    root.mkdir(parents=True, exist_ok=True)
    disturbed.prepare(root)
    rng, names = random.Random(flags.seed), flags.presets.split(",")
    for i, preset in enumerate(names):
        for old in root.glob(f"{preset}-*"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        disturbed.whole(disturbed.config(preset, root), root / f"{preset}-compiled")  # fills the cache
        start = time.monotonic()
        undisturbed = disturbed.whole(disturbed.config(preset, root), root / f"{preset}-undisturbed")
        seconds = time.monotonic() - start
        kills, signals = ((n + len(names) - 1 - i) // len(names) for n in (flags.kills, flags.signals))
        when = kill(preset, root, kills, rng, undisturbed, seconds)
        moments = ", ".join(f"{n} in {moment}" for moment, n in when.items())
        print(f"{preset}: {sum(when.values())} kills ({moments}), all ends bit-identical", flush=True)
        taken = stop(preset, root, signals, rng, undisturbed, seconds)
        if taken:
            print(f"{preset}: {len(taken)} signals, {(len(taken) + 1) // 2} of them during an evaluation: ended with a "
                  f"checkpoint after {max(taken):.1f} s at most, all ends bit-identical", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
