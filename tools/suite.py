"""Runs presets one after another, or side by side on disjoint GPUs, then compares them.

examples
    ./launch.sh suite --config-suffix=:tiny o1 l1 r1      these presets at CPU size, then a report
    ./launch.sh suite --seeds=0,1,2 o1 l1                 each with three seeds
    ./launch.sh suite --gpus=0,1/2,3 o1 l1                side by side, on two GPUs each
    ./launch.sh suite plan                                the plan's decision tree: O1 and L1 with three seeds each,
                                                          compare, then what the verdict names, and so on to its end
    ./launch.sh suite plan --decoder=pretrained/trm_arc1  every run starts from this pretrained decoder
    ./launch.sh suite --root=runs/lr3 o1 l1 --config.optim.lr=3e-4

what is written
    ROOT/o1, ROOT/o1-tiny, ROOT/o1-tiny_seed1, …          a folder for each preset, size and seed
    OUT/report.html, OUT/summary.json                     the comparison; the plan renews it after every stage
    A relative ROOT or OUT lies in the repository, wherever the command is given.

starting it again
    A run goes on in its folder from its last checkpoint, and a finished one costs seconds. A folder takes no run with
    other settings than it has: besides the seed, everything that an override changes needs another --root.
    The plan takes all runs of its presets and its size under ROOT into account, and goes on where they stand. While
    they do not decide, it adds a seed of each baseline, up to --max-seeds; then it follows the lean, and says so.

A run that fails stops the suite: what is under way is finished, nothing more is started. Ctrl-C stops the runs after
their running step, with a checkpoint; a second one ends them at once.
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, Python looks in tools/ only

from tools.side_by_side import ROOT, SuiteError, run_all
from trm_jax import compare
from trm_jax.beside import presets
from trm_jax.comparison.events import RunError
from trm_jax.comparison.plan import BASELINES, DECIDING, PlannedRun, arguments, folder_name
from trm_jax.comparison.runs import PRESETS, Run, load_run
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.paths import user_path
from trm_jax.terminal import speak_plainly

INTERRUPTED = 128 + signal.SIGINT  # exit status


def planned(options: argparse.Namespace, names: Sequence[str]) -> list[PlannedRun]:
    """These presets with every seed, each in its own folder."""
    return [PlannedRun(name, options.size, seed, options.overrides,
                       str(options.root / folder_name(name, options.size, seed)))
            for name in names for seed in options.seeds]


def start(runs: Sequence[PlannedRun], options: argparse.Namespace) -> None:
    """Trains the runs to their ends. Raises SuiteError: see `run_all`."""
    run_all([train_command(run) for run in runs], options.gpus)


def train_command(run: PlannedRun) -> list[str]:
    return [sys.executable, "-m", "trm_jax.train", *arguments(run)]


def walk_plan(options: argparse.Namespace, start: Callable = start) -> None:
    """Runs the baselines, then whatever the verdict on all runs so far names, until it names nothing.

    Raises:
        SuiteError: the runs do not decide and lean nowhere, or running what the verdict named has not changed it.
    """
    runs = planned(options, list(BASELINES.values()))
    named: set[str] = set()  # folders that a verdict has asked for
    while runs:
        start(runs, options)
        step = compare.compare(found(options.root, options.size), options.out, max_seeds=options.max_seeds).next_step
        runs = [run for run in step.runs if run.workdir not in named]
        if not runs and not step.is_end:
            again = ", ".join(run.workdir for run in step.runs)
            raise SuiteError((f"the verdict asks again for {again}, which has been run: " if again else "") + step.what)
        named |= {run.workdir for run in runs}
    print("suite: the plan is done")


def found(root: Path, size: str) -> list[Run]:
    """The runs of the plan's presets at this size under `root` that have logged something."""
    runs = []
    names = re.compile(rf"({'|'.join(PRESETS)}){'-' + size if size else ''}(_seed\d+)?")
    for path in sorted(path for path in root.iterdir() if names.fullmatch(path.name)):
        try:
            runs.append(load_run(path, path.name))
        except RunError as error:
            print(f"suite: left out of the comparison: {error}")
    return [run for run in runs if run.label.startswith(run.identity.preset or "no preset")]


# ── The command line ──


def gpu_groups(text: str) -> list[list[str]]:
    """`0,1/2,3` → two runs at once, on two GPUs each; empty: one run at a time on everything there is."""
    return [[gpu for gpu in group.split(",") if gpu] for group in text.split("/")]


def seed_list(text: str) -> list[int]:
    """`0,1,2` → these seeds, each once."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of seeds such as 0,1,2")
    return list(dict.fromkeys(map(int, text.split(","))))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options, with what every run is given as `overrides`, "section.field" → text."""
    parser = argparse.ArgumentParser(prog="./launch.sh suite", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="+", help=f"`plan`, or any of: {', '.join(presets())}")
    parser.add_argument("--config-suffix", default="", choices=["", ":tiny"], metavar=":tiny",
                        help="size of every preset; full size without it")
    parser.add_argument("--seeds", type=seed_list, help="seeds of every preset (0), of the plan's baselines (0,1,2)")
    parser.add_argument("--max-seeds", type=int, default=5, help="plan: most seeds of each baseline (5)")
    parser.add_argument("--decoder", type=user_path, help="pretrained decoder that every run starts from")
    parser.add_argument("--root", type=user_path, default=Path("runs"), help="folder of the run folders (runs)")
    parser.add_argument("--out", type=user_path, default=Path("report"), help="folder of the report (report)")
    parser.add_argument("--gpus", type=gpu_groups, default="", help="groups of GPUs to run side by side on: 0,1/2,3")
    options, rest = parser.parse_known_args(argv)
    options.size = options.config_suffix.removeprefix(":")
    options.presets = list(dict.fromkeys(options.presets))
    is_plan = options.presets == ["plan"]
    options.seeds = options.seeds or list(range(min(THRESHOLDS.plan_seeds, options.max_seeds) if is_plan else 1))
    options.overrides = {"train.load_pretrained_decoder": str(options.decoder)} if options.decoder else {}
    for word in rest:
        field, _, value = word.removeprefix("--config.").partition("=")
        if not re.match(r"--config\.\w+\.\w+=", word):
            parser.error(f"unknown argument {word}; overrides look like --config.optim.lr=3e-4")
        if field == "train.seed":
            parser.error("seeds are given as --seeds=0,1,2: every seed has its own folder")
        if is_plan and field.startswith(DECIDING):
            parser.error(f"{word}: this is what the presets of the plan differ in")
        options.overrides[field] = value
    if unknown := [name for name in options.presets if name not in presets() and not is_plan]:
        parser.error(f"unknown preset {unknown[0]!r}; choose from: plan (alone), {', '.join(presets())}")
    if options.max_seeds < 1:
        parser.error(f"--max-seeds={options.max_seeds} leaves nothing to run")
    return options


def main(argv: Sequence[str]) -> None:
    speak_plainly()
    options = parse(argv)
    os.chdir(ROOT)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job begins with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        if options.presets == ["plan"]:
            walk_plan(options)
        else:
            runs = planned(options, options.presets)
            start(runs, options)
            compare.compare(compare.load_runs([run.workdir for run in runs]), options.out)
        print(f"Curves: ./launch.sh python -m tensorboard.main --logdir={options.root}")
    except (SuiteError, RunError, OSError) as error:
        sys.exit(f"suite: {error}")
    except KeyboardInterrupt:
        print("suite: interrupted; the same command goes on with what is there", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main(sys.argv[1:])
