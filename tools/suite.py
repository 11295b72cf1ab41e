"""Runs presets one after another, or side by side on disjoint GPUs, then compares them.

examples
    ./launch.sh suite --config-suffix=:tiny o1 l1 r1      these presets at CPU size, then a report
    ./launch.sh suite --seeds=0,1,2 o1 l1                 each with three seeds
    ./launch.sh suite --gpus=0,1/2,3 o1 l1                side by side, on two GPUs each
    ./launch.sh suite plan                                the plan's decision tree: O1 and L1, compare, then what the
                                                          verdict names, and so on to its end
    ./launch.sh suite --root=runs/lr3 o1 l1 --config.optim.lr=3e-4

what is written
    ROOT/o1, ROOT/o1-tiny, ROOT/o1-tiny_seed1, …          a folder for each preset, size and seed
    OUT/report.html, OUT/summary.json, OUT/*.png          the comparison; the plan renews it after every stage
    A relative ROOT or OUT lies in the repository, wherever the command is given.

starting it again
    A run goes on in its folder from its last checkpoint, and a finished one costs seconds. A folder takes no run with
    other settings than it has: besides the seed, everything that an override changes needs another --root.
    The plan takes all runs of its size under ROOT into account whose folders are named as above, and goes on where
    they stand. While they do not decide, it adds a seed of each baseline, up to --max-seeds.

A run that fails stops the suite: what is under way is finished, nothing more is started. Ctrl-C stops the runs after
their running step, with a checkpoint; a second one ends them at once.
"""

import argparse
import json
import re
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, Python looks in tools/ only

from tools.side_by_side import ROOT, SuiteError, run_all
from trm_jax.comparison.judgement.commands import folder_name
from trm_jax.comparison.judgement.presets import BASELINES, NAMES, SIZES, telling
from trm_jax.comparison.record.events import RunError
from trm_jax.comparison.record.runs import load_run
from trm_jax.paths import user_path

CONFIGS = ROOT / "configs"
LAUNCH = "./launch.sh"  # what the commands of a verdict begin with
DECIDED = ("original", "online")  # verdicts that the tree has a branch for
INTERRUPTED = 128 + signal.SIGINT  # exit status


# ── Commands ──


def presets() -> list[str]:
    """Names of all presets."""
    return sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem not in ("__init__", "base"))


def train_command(preset: str, size: str, seed: int, root: Path, overrides: Sequence[str] = ()) -> list[str]:
    """The command of one run in its own folder; seed 0 is the preset's own."""
    return [*_python("trm_jax.train"), f"--config=configs/{preset}.py{':' + size if size else ''}",
            f"--workdir={root / folder_name(preset, size, seed)}", *overrides,
            *([f"--config.train.seed={seed}"] if seed else [])]


def from_launch(line: str) -> list[str]:
    """The command that a line of a verdict stands for."""
    launch, *arguments = shlex.split(line)
    if launch != LAUNCH:
        raise SuiteError(f"a command of the verdict does not begin with {LAUNCH}: {line}")
    return [*_python("trm_jax.train"), *arguments]


def workdir_of(command: Sequence[str]) -> str:
    """The run folder that a train command names."""
    return next(arg.removeprefix("--workdir=") for arg in command if arg.startswith("--workdir="))


def preset_in(folder: str, size: str) -> str | None:
    """The preset of the plan that a folder is named after, at this size and with any seed."""
    match = re.fullmatch(rf"({'|'.join(NAMES)}){'-' + size if size else ''}(_seed\d+)?", Path(folder).name)
    return match.group(1) if match else None


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", module]


# ── The plan ──


def compare(folders: Sequence[str], out: Path) -> dict:
    """Compares run folders, says where to look at them, and returns the verdict of summary.json."""
    run_all([[*_python("trm_jax.compare"), *folders, f"--out={out}"]], [[]])
    print(f"suite: report: {ROOT / out / 'report.html'}")
    print(f"suite: curves: {LAUNCH} python -m tensorboard.main --logdir={shlex.quote(str(Path(folders[0]).parent))}")
    return json.loads((ROOT / out / "summary.json").read_text(encoding="utf-8"))["verdict"]


def found(root: Path, size: str) -> list[str]:
    """The runs of the plan's presets at this size under `root` that have logged something."""
    folders = [str(root / path.name) for path in sorted((ROOT / root).iterdir())] if (ROOT / root).is_dir() else []
    return [folder for folder in folders if preset_in(folder, size) and _has_logged(ROOT / folder)]


def _has_logged(folder: Path) -> bool:
    try:
        load_run(folder, folder.name)
    except RunError as error:
        print(f"suite: left out of the comparison: {error}")
        return False
    return True


def walk_plan(options: argparse.Namespace, overrides: Sequence[str], run_all: Callable = run_all,
              compare: Callable = compare) -> None:
    """Runs the baselines, then whatever the verdict on all runs so far names, until it names nothing.

    Raises:
        SuiteError: the runs do not decide, or running what the verdict named has not changed it.
    """
    root, size = options.root, options.size
    commands = [train_command(name, size, seed, root, overrides) for name in BASELINES.values()
                for seed in options.seeds]
    named: set[str] = set()  # folders that a verdict has asked for
    while commands:
        run_all(commands, options.gpus)
        folders = found(root, size)
        verdict = compare(folders, options.out)
        wanted = next_commands(verdict, folders, size, options.max_seeds)
        commands = [command for command in wanted if workdir_of(command) not in named]
        if wanted and not commands:
            again = ", ".join(map(workdir_of, wanted))
            raise SuiteError(f"the verdict asks again for {again}, which has been run: {verdict['next_step']['what']}")
        named |= set(map(workdir_of, commands))
    print("suite: the plan is done")


def next_commands(verdict: dict, folders: Sequence[str], size: str, max_seeds: int) -> list[list[str]]:
    """The runs that the verdict on `folders` names, without seeds beyond `max_seeds` of a baseline.

    Raises:
        SuiteError: only more seeds could decide, and there are enough.
    """
    wanted = [from_launch(line) for line in verdict["next_step"]["commands"]]
    if verdict["answer"] in DECIDED:
        return wanted
    seeds = [preset_in(folder, size) for folder in folders]
    commands = [command for command in wanted
                if workdir_of(command) in folders or seeds.count(preset_in(workdir_of(command), size)) < max_seeds]
    if not commands:
        raise SuiteError(f"{verdict['answer']} with {max_seeds} seeds of each baseline (--max-seeds), and the tree has "
                         f"no branch for that. {verdict['next_step']['what']}")
    return commands


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
    parser = argparse.ArgumentParser(prog=f"{LAUNCH} suite", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="+", help=f"`plan`, or any of: {', '.join(presets())}")
    parser.add_argument("--config-suffix", default="", choices=[f":{size}" if size else "" for size in SIZES],
                        metavar=":tiny", help="size of every preset; full size without it")
    parser.add_argument("--seeds", type=seed_list, default="0", help="seeds of every preset, e.g. 0,1,2 (0)")
    parser.add_argument("--max-seeds", type=int, default=3, help="plan: most seeds of each baseline (3)")
    parser.add_argument("--root", type=user_path, default=Path("runs"), help="folder of the run folders (runs)")
    parser.add_argument("--out", type=user_path, default=Path("report"), help="folder of the report (report)")
    parser.add_argument("--gpus", type=gpu_groups, default="", help="groups of GPUs to run side by side on: 0,1/2,3")
    options, rest = parser.parse_known_args(argv)
    options.size = options.config_suffix.removeprefix(":")
    options.presets = list(dict.fromkeys(options.presets))
    problem = _problem(options.presets, rest)
    if problem:
        parser.error(problem)
    return options, rest


def _problem(names: Sequence[str], overrides: Sequence[str]) -> str:
    """What is wrong with presets and overrides, '' for nothing."""
    fields = {arg.removeprefix("--config.").partition("=")[0]: arg for arg in overrides}
    stray = [arg for arg in overrides if not arg.startswith("--config.")]
    unknown = [name for name in names if name not in presets() and names != ["plan"]]
    varied = sorted(fields.keys() & telling()) if names == ["plan"] else []
    if stray:
        return f"unknown argument {stray[0]}; overrides look like --config.optim.lr=3e-4"
    if unknown:
        return f"unknown preset {unknown[0]!r}; choose from: plan (alone), {', '.join(presets())}"
    if "train.seed" in fields:
        return "seeds are given as --seeds=0,1,2: every seed has its own folder"
    return f"{fields[varied[0]]}: this is what the presets of the plan differ in" if varied else ""


def main(argv: Sequence[str]) -> None:
    options, overrides = parse(argv)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job begins with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        if options.presets == ["plan"]:
            walk_plan(options, overrides)
            return
        commands = [train_command(name, options.size, seed, options.root, overrides) for name in options.presets
                    for seed in options.seeds]
        run_all(commands, options.gpus)
        compare([workdir_of(command) for command in commands], options.out)
    except SuiteError as error:
        sys.exit(f"suite: {error}")
    except KeyboardInterrupt:
        print("suite: interrupted; the same command goes on with what is there", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main(sys.argv[1:])
