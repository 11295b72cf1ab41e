"""Runs presets one after another, or side by side on disjoint GPUs, then compares them.

    ./launch.sh suite [--config-suffix=:tiny] o1 l1 r1 …    these presets, then a report
    ./launch.sh suite plan [--config-suffix=:tiny]          the plan's decision tree: O1 and L1, compare, the branch
                                                            that the verdict names, and so on to its end

Every run has its folder under --root and continues there when the suite is started again: a finished one costs a
few seconds. A run that fails stops the suite, which says how to go on.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
FIRST = ("o1", "l1")  # where the decision tree starts
DECIDED = ("original", "online")  # verdicts that the tree has a branch for


class SuiteError(Exception):
    """Something that stops the suite, told in one line."""


def presets() -> list[str]:
    """Names of all presets."""
    return sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem not in ("__init__", "base"))


def train_command(preset: str, suffix: str, root: Path, overrides: Sequence[str] = ()) -> list[str]:
    """The command of one run; its folder is named after preset and suffix."""
    workdir = root / f"{preset}{suffix.replace(':', '-')}"
    return [sys.executable, "-m", "trm_jax.train", f"--config=configs/{preset}.py{suffix}", f"--workdir={workdir}",
            *overrides]


def workdir_of(command: Sequence[str]) -> str:
    """The run folder that a train command names."""
    return next(arg.removeprefix("--workdir=") for arg in command if arg.startswith("--workdir="))


def run_all(commands: Sequence[list[str]], gpus: Sequence[Sequence[str]]) -> None:
    """Runs the commands, as many at once as there are groups of `gpus` (one group of none: the whole machine).

    Raises:
        SuiteError: a run failed; those under way are finished first.
    """
    free: SimpleQueue[Sequence[str]] = SimpleQueue()
    for group in gpus:
        free.put(group)

    def run(command: list[str]) -> int:
        group = free.get()
        environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ",".join(group)} if group else {})
        print(f"suite: {shlex.join(command)}", flush=True)
        try:
            return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        finally:
            free.put(group)

    with ThreadPoolExecutor(len(gpus)) as pool:
        codes = list(pool.map(run, commands))
    failed = [workdir_of(command) for command, code in zip(commands, codes, strict=True) if code]
    if failed:
        raise SuiteError(f"{', '.join(failed)} failed; the same command goes on from the last checkpoints")


def compare(folders: Sequence[str], out: Path) -> dict:
    """Compares run folders and returns the verdict of summary.json."""
    command = [sys.executable, "-m", "trm_jax.compare", *folders, f"--out={out}"]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise SuiteError("the comparison failed")
    return json.loads((ROOT / out / "summary.json").read_text())["verdict"]


def next_commands(verdict: dict, suffix: str, root: Path) -> list[list[str]]:
    """The runs that the verdict asks for, at this suite's size and in its folder; none where it is the end.

    Raises:
        SuiteError: the tree has no branch for the verdict (a tie, or the runs cannot tell).
    """
    wanted = verdict["next_step"]["commands"]
    if wanted and verdict["answer"] not in DECIDED:
        what = verdict["next_step"]["what"]
        raise SuiteError(f"the verdict is {verdict['answer']}, and the tree has no branch for that. {what}")
    commands = []
    for line in wanted:
        arguments = shlex.split(line)[1:]
        preset = next(Path(arg.partition("=")[2]).stem for arg in arguments if arg.startswith("--config="))
        overrides = [arg for arg in arguments if not arg.startswith(("--config=", "--workdir="))]
        commands.append(train_command(preset, suffix, root, overrides))
    return commands


def walk_plan(suffix: str, root: Path, out: Path, overrides: Sequence[str], gpus: Sequence[Sequence[str]]) -> None:
    """Runs the decision tree to its end."""
    commands = [train_command(preset, suffix, root, overrides) for preset in FIRST]
    folders: list[str] = []
    while commands:
        run_all([command + [o for o in overrides if o not in command] for command in commands], gpus)
        folders += [workdir_of(command) for command in commands]
        verdict = compare(folders, out)
        commands = [c for c in next_commands(verdict, suffix, root) if workdir_of(c) not in folders]
    print(f"suite: the plan is done; report: {out / 'report.html'}")


def gpu_groups(text: str) -> list[list[str]]:
    """`0,1/2,3` → two runs at once, on two GPUs each; empty: one run at a time on everything there is."""
    return [[gpu for gpu in group.split(",") if gpu] for group in text.split("/")]


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options, and the overrides (`--config.…`) that every run is given."""
    parser = argparse.ArgumentParser(prog="./launch.sh suite", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="+", help=f"`plan`, or any of: {', '.join(presets())}")
    parser.add_argument("--config-suffix", default="", help="size of every preset, e.g. :tiny")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of the run folders (runs)")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder of the report (report)")
    parser.add_argument("--gpus", default="", help="groups of GPUs to run side by side on, e.g. 0,1/2,3")
    options, rest = parser.parse_known_args(argv)
    stray = [arg for arg in rest if not arg.startswith("--config.")]
    if stray:
        parser.error(f"unknown argument {stray[0]}; overrides look like --config.optim.lr=3e-4")
    unknown = [name for name in options.presets if name not in presets() and options.presets != ["plan"]]
    if unknown:
        parser.error(f"unknown preset {unknown[0]!r}; choose from: plan (alone), {', '.join(presets())}")
    return options, rest


def main(argv: Sequence[str]) -> None:
    options, overrides = parse(argv)
    gpus = gpu_groups(options.gpus)
    try:
        if options.presets == ["plan"]:
            walk_plan(options.config_suffix, options.root, options.out, overrides, gpus)
            return
        commands = [train_command(p, options.config_suffix, options.root, overrides) for p in options.presets]
        run_all(commands, gpus)
        compare([workdir_of(command) for command in commands], options.out)
    except SuiteError as error:
        sys.exit(f"suite: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
