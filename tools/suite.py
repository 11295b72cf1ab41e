"""Runs presets one after another, or side by side on disjoint GPUs, then compares them.

    ./launch.sh suite --config-suffix=:tiny o1 l1 r1      these presets at CPU size, then a report
    ./launch.sh suite --seeds=0,1,2 o1 l1                 each with three seeds
    ./launch.sh suite --gpus=0,1/2,3 o1 l1                side by side, on two GPUs each
    ./launch.sh suite --processes=2 o1 l1                 every run as two processes of this machine
    ./launch.sh suite --root=runs/lr3 o1 l1 --config.optim.lr=3e-4
    ./launch.sh suite plan --decoder=pretrained/trm_arc1  the plan's decision tree, every run from this decoder

The plan begins with O1 and L1 with three seeds each, compares, runs what the verdict names, and so on to its end. While
nothing is decided it adds a seed of each, up to --max-seeds; then it follows the lean, and says so. ROOT gets a folder
for each preset, size and seed (o1, o1-tiny, o1-tiny_seed1), OUT the report; relative ones lie in the repository.
Started again, a run goes on in its folder from its last checkpoint, and the plan where the runs under ROOT stand. A
folder takes no run with other settings than it has: besides the seed, what an override changes needs another --root.
A run that fails stops the suite: what is under way is finished, nothing more is started. Ctrl-C stops the runs after
their running step, with a checkpoint; a second one ends them at once.
"""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from trm_jax import compare, terminal
from trm_jax.beside import presets
from trm_jax.comparison.events import RunError
from trm_jax.comparison.plan import BASELINES, DECIDING, PlannedRun, arguments, folder_name
from trm_jax.comparison.runs import SERIES, Run, load_run
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.paths import user_path

ROOT = Path(__file__).resolve().parents[1]


class SuiteError(Exception):
    """Something that stops the suite, told in one line."""


def walk_plan(options: argparse.Namespace, start: Callable) -> None:
    """Runs the baselines, then whatever the verdict on all runs so far names, until it names nothing.

    Raises SuiteError: the runs do not decide and lean nowhere, or running what the verdict named has not changed it.
    """
    runs, named = planned(options, list(BASELINES.values())), set()
    while runs:
        start(runs, options)
        step = compare.compare(found(options.root, options.size), options.out, max_seeds=options.max_seeds).next_step
        runs = [run for run in step.runs if run.workdir not in named]
        if not runs and not step.is_end:
            again = ", ".join(run.workdir for run in step.runs)
            raise SuiteError((f"the verdict asks again for {again}, which has been run: " if again else "") + step.what)
        named |= {run.workdir for run in runs}
    print("suite: the plan is done")


def planned(options: argparse.Namespace, names: Sequence[str]) -> list[PlannedRun]:
    """These presets with every seed, each in its own folder."""
    return [PlannedRun(name, options.size, seed, options.overrides, str(options.root / folder_name(
        name, options.size, seed))) for name in names for seed in options.seeds]


def found(root: Path, size: str) -> list[Run]:
    """The runs of the plan's presets at this size under `root` that have logged something, in the plan's order."""
    runs, names = [], dict.fromkeys(folder_name(preset, size, 0) for series in SERIES.values() for preset in series)
    for path in [path for name in names for path in sorted([*root.glob(f"{name}/"), *root.glob(f"{name}_seed*/")])]:
        try:
            runs.append(load_run(path, path.name))
        except RunError as error:
            print(f"suite: left out of the comparison: {error}")
    return [run for run in runs if run.label.startswith(run.identity.preset or "no preset")]


def start(runs: Sequence[PlannedRun], options: argparse.Namespace) -> None:
    """Trains the runs to their ends. Raises SuiteError: see `run_all`."""
    several = ["tools/processes.py", str(options.processes), sys.executable] if options.processes else []
    run_all([[sys.executable, *several, "-m", "trm_jax.train", *arguments(run)] for run in runs], options.gpus)


def run_all(commands: Iterable[list[str]], gpus: Sequence[Sequence[str]]) -> None:
    """Runs the commands, as many at once as there are groups of `gpus` (one group of none: the whole machine).

    Raises SuiteError: a run failed; those under way are finished first, and no other is started. KeyboardInterrupt:
    Ctrl-C; all have been stopped.
    """
    waiting, free, failed = list(commands), list(gpus), []
    running: dict[subprocess.Popen, Sequence[str]] = {}
    try:
        while running or (waiting and not failed):
            while waiting and free and not failed:
                command, group = waiting.pop(0), free.pop(0)
                print(f"suite: {shlex.join(command)}", flush=True)
                visible = {"CUDA_VISIBLE_DEVICES": ",".join(group)} if group else {}
                # In a group of its own it is out of reach of the terminal's Ctrl-C, which `_stop` passes on, once.
                running[subprocess.Popen(command, cwd=ROOT, env=os.environ | visible, process_group=0)] = group
            for process in [process for process in running if process.poll() is not None]:
                free.append(running.pop(process))
                if process.returncode:
                    failed.append(f"exit code {process.returncode} from: {shlex.join(process.args)}")
            time.sleep(0.1)
    except KeyboardInterrupt:
        _stop(running)
        raise
    if failed:
        raise SuiteError("; ".join(failed))


def _stop(processes: Iterable[subprocess.Popen]) -> None:
    """Asks the runs to save and stop, and waits for them; Ctrl-C meanwhile asks again, which ends them at once."""
    for process in processes:
        process.terminate()
    try:
        for process in processes:
            process.wait()
    except KeyboardInterrupt:
        _stop(processes)


def seed_list(text: str) -> list[int]:
    """`0,1,2` → these seeds, each once."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of seeds such as 0,1,2")
    return list(dict.fromkeys(map(int, text.split(","))))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options, with what every run is given as `overrides`, "section.field" → text."""
    parser = argparse.ArgumentParser(prog="./launch.sh suite", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    option = parser.add_argument
    option("presets", nargs="+", help=f"`plan`, or any of: {', '.join(presets())}")
    option("--config-suffix", default="", choices=["", ":tiny"], help="size of every preset; full size without it")
    option("--seeds", type=seed_list, help="seeds of every preset (0), of the plan's baselines (0,1,2)")
    option("--max-seeds", type=int, default=5, help="plan: most seeds of each baseline (5)")
    option("--decoder", type=user_path, help="pretrained decoder that every run starts from")
    option("--root", type=user_path, default=Path("runs"), help="folder of the run folders (runs)")
    option("--out", type=user_path, default=Path("report"), help="folder of the report (report)")
    option("--gpus", default="", help="groups of GPUs to run side by side on, 0,1/2,3; else one run at a time on all")
    option("--processes", type=int, help="processes of this machine that make one run")
    options, rest = parser.parse_known_args(argv)
    options.size, options.presets = options.config_suffix.removeprefix(":"), list(dict.fromkeys(options.presets))
    options.gpus = [[gpu for gpu in group.split(",") if gpu] for group in options.gpus.split("/")]
    is_plan = options.presets == ["plan"]
    options.seeds = options.seeds or list(range(min(THRESHOLDS.plan_seeds, options.max_seeds) if is_plan else 1))
    options.overrides = {"train.load_pretrained_decoder": str(options.decoder)} if options.decoder else {}
    if unknown := [name for name in options.presets if name not in presets() and not is_plan]:
        parser.error(f"unknown preset {unknown[0]!r}; choose from: plan (alone), {', '.join(presets())}")
    if options.max_seeds < 1:
        parser.error(f"--max-seeds={options.max_seeds} leaves nothing to run")
    for word in rest:
        field, _, value = word.removeprefix("--config.").partition("=")
        if not re.match(r"--config\.\w+\.\w+=", word):
            parser.error(f"unknown argument {word}; overrides look like --config.optim.lr=3e-4")
        if field == "train.seed":
            parser.error("seeds are given as --seeds=0,1,2: every seed has its own folder")
        if is_plan and field.startswith(DECIDING):
            parser.error(f"{word}: this is what the presets of the plan differ in")
        options.overrides[field] = value
    return options


def main(argv: Sequence[str]) -> None:
    terminal.speak_plainly()
    options = parse(argv)
    os.chdir(ROOT)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job begins with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        if options.presets == ["plan"]:
            walk_plan(options, start)
        else:
            runs = planned(options, options.presets)
            start(runs, options)
            compare.compare(compare.load_runs([run.workdir for run in runs]), options.out)
        print(f"Curves: ./launch.sh python -m tensorboard.main --logdir={options.root}")
    except (SuiteError, RunError, OSError) as error:
        sys.exit(f"suite: {error}")
    except KeyboardInterrupt:
        print("suite: interrupted; the same command goes on with what is there", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main(sys.argv[1:])
