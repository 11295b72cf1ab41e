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
from trm_jax.comparison import plan
from trm_jax.comparison.config import PRESETS
from trm_jax.comparison.events import RunError
from trm_jax.comparison.plan import BASELINES, PlannedRun
from trm_jax.comparison.runs import load_run
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.verdict import Verdict
from trm_jax.paths import user_path
from trm_jax.terminal import speak_plainly

CONFIGS = ROOT / "configs"
SIZES = ("", "tiny")  # what may stand behind the colon
INTERRUPTED = 128 + signal.SIGINT  # exit status
OVERRIDE = "--config."


def presets() -> list[str]:
    """Names of all presets."""
    return sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem not in ("__init__", "base"))


def planned(options: argparse.Namespace, names: Sequence[str], overrides: Sequence[str]) -> list[PlannedRun]:
    """These presets with every seed, each in its own folder."""
    given = dict(word.removeprefix(OVERRIDE).split("=", 1) for word in overrides)
    return [PlannedRun(name, options.size, seed, given,
                       str(options.root / plan.folder_name(name, options.size, seed)))
            for name in names for seed in options.seeds]


def start(runs: Sequence[PlannedRun], options: argparse.Namespace) -> None:
    """Trains the runs to their ends. Raises SuiteError: see `run_all`."""
    run_all(map(train_command, runs), options.gpus)


def train_command(run: PlannedRun) -> list[str]:
    return [sys.executable, "-m", "trm_jax.train", *plan.arguments(run)]


# ── The plan ──


def walk_plan(options: argparse.Namespace, overrides: Sequence[str], start: Callable = start) -> None:
    """Runs the baselines, then whatever the verdict on all runs so far names, until it names nothing.

    Raises:
        SuiteError: the runs do not decide and lean nowhere, or running what the verdict named has not changed it.
    """
    runs = planned(options, list(BASELINES.values()), overrides)
    named: set[str] = set()  # folders that a verdict has asked for
    while runs:
        start(runs, options)
        step = compared(found(options.root, options.size), options.out, options.max_seeds).next_step
        runs = [run for run in step.runs if run.workdir not in named]
        if not runs and not step.is_end:
            again = ", ".join(run.workdir for run in step.runs)
            raise SuiteError((f"the verdict asks again for {again}, which has been run: " if again else "") + step.what)
        named |= {run.workdir for run in runs}
    print("suite: the plan is done")


def compared(folders: Sequence[str], out: Path, max_seeds: int | None = None) -> Verdict:
    """Compares run folders, prints the answer and where to look at the curves."""
    try:
        verdict = compare.compare(folders, out, max_seeds=max_seeds)
    except (RunError, OSError) as error:
        raise SuiteError(str(error)) from None
    print(f"Curves: ./launch.sh python -m tensorboard.main --logdir={Path(folders[0]).parent}")
    return verdict


def found(root: Path, size: str) -> list[str]:
    """The runs of the plan's presets at this size under `root` that have logged something."""
    folders = []
    for path in sorted(path for path in root.iterdir() if path.is_dir()):
        try:
            identity = load_run(path, path.name).identity
        except RunError as error:
            print(f"suite: left out of the comparison: {error}")
            continue
        named_after = re.fullmatch(rf"{plan.folder_name(identity.preset, size, 0)}(_seed\d+)?", path.name)
        if identity.preset in PRESETS and identity.size == size and named_after:
            folders.append(str(path))
    return folders


# ── The command line ──


def gpu_groups(text: str) -> list[list[str]]:
    """`0,1/2,3` → two runs at once, on two GPUs each; empty: one run at a time on everything there is."""
    return [[gpu for gpu in group.split(",") if gpu] for group in text.split("/")]


def seed_list(text: str) -> list[int]:
    """`0,1,2` → these seeds, each once."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of seeds such as 0,1,2")
    return list(dict.fromkeys(map(int, text.split(","))))


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options, and the overrides (`--config.…`) that every run is given."""
    parser = argparse.ArgumentParser(prog="./launch.sh suite", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="+", help=f"`plan`, or any of: {', '.join(presets())}")
    parser.add_argument("--config-suffix", default="", choices=[f":{size}" if size else "" for size in SIZES],
                        metavar=":tiny", help="size of every preset; full size without it")
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
    problem = _problem(options.presets, rest, options)
    if problem:
        parser.error(problem)
    return options, [*([f"--config.train.load_pretrained_decoder={options.decoder}"] if options.decoder else []), *rest]


def _problem(names: Sequence[str], overrides: Sequence[str], options: argparse.Namespace) -> str:
    """What is wrong with presets and overrides, '' for nothing."""
    fields = {word.removeprefix(OVERRIDE).partition("=")[0]: word for word in overrides}
    stray = [word for word in overrides if not word.startswith(OVERRIDE) or "=" not in word]
    unknown = [name for name in names if name not in presets() and names != ["plan"]]
    varied = [field for field in fields if field.startswith(plan.DECIDING) and names == ["plan"]]
    if stray:
        return f"unknown argument {stray[0]}; overrides look like --config.optim.lr=3e-4"
    if unknown:
        return f"unknown preset {unknown[0]!r}; choose from: plan (alone), {', '.join(presets())}"
    if "train.seed" in fields:
        return "seeds are given as --seeds=0,1,2: every seed has its own folder"
    if options.max_seeds < 1:
        return f"--max-seeds={options.max_seeds} leaves nothing to run"
    return f"{fields[varied[0]]}: this is what the presets of the plan differ in" if varied else ""


def main(argv: Sequence[str]) -> None:
    speak_plainly()
    options, overrides = parse(argv)
    os.chdir(ROOT)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job begins with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        if options.presets == ["plan"]:
            walk_plan(options, overrides)
            return
        runs = planned(options, options.presets, overrides)
        start(runs, options)
        compared([run.workdir for run in runs], options.out)
    except SuiteError as error:
        sys.exit(f"suite: {error}")
    except KeyboardInterrupt:
        print("suite: interrupted; the same command goes on with what is there", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main(sys.argv[1:])
