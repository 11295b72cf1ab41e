"""▶ From run folders to an answer: which training dynamics wins, on what evidence, and what to run next.

    python -m trm_jax.compare runs/o1 runs/l1 [runs/…] [--out=report/] [--name runs/o1=O1] [--axis=updates] [--all]

Reads the TensorBoard event files of each folder (ours, or any other writer's with the same tags), prints the answer
by the plan's own criteria, and writes report.html (one file, works offline) and summary.json.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from trm_jax.comparison import curves, report
from trm_jax.comparison.events import RunError
from trm_jax.comparison.groups import group_runs
from trm_jax.comparison.runs import AXES, Run, load_run
from trm_jax.comparison.verdict import Verdict, judge
from trm_jax.paths import user_path

_OUT = flags.DEFINE_string("out", "report", "Folder for report.html and summary.json; made if missing.")
_NAMES = flags.DEFINE_multi_string("name", [], "PATH=LABEL: what a run is called; once for each. Default: its folder.")
_AXIS = flags.DEFINE_enum("axis", None, list(AXES), "What the curves are laid over each other by. Default: an axis on "
                          "which the runs are equally long.")
_ALL = flags.DEFINE_bool("all", False, "Print every number, criterion, caveat and command.")


def main(argv: Sequence[str]) -> None:
    try:
        compare(load_runs(argv[1:], _NAMES.value), user_path(_OUT.value), _AXIS.value, _ALL.value)
    except RunError as error:
        sys.exit(f"compare: {error}")
    except OSError as error:  # of the report
        sys.exit(f"compare: {error.filename}: {error.strerror}")


def load_runs(folders: Sequence[str], names: Sequence[str] = ()) -> list[Run]:
    """Reads every folder once, under its label: what a `PATH=LABEL` of `names` calls it, else its last part, or all of
    it where last parts are equal. Raises RunError: a folder that is no run, or a label that cannot be given."""
    paths = [user_path(folder) for folder in folders]
    if not paths:
        raise RunError("name at least one run folder, for example: python -m trm_jax.compare runs/o1 runs/l1")
    if len({path.resolve() for path in paths}) < len(paths):
        raise RunError("a run folder is named twice")
    last_parts = [path.resolve().name for path in paths]
    labels = {path: part if last_parts.count(part) == 1 else str(path)
              for path, part in zip(paths, last_parts, strict=True)}
    for name in names:
        path, _, label = name.rpartition("=")
        if not label or user_path(path) not in labels:
            raise RunError(f"--name {name}: write PATH=LABEL, with PATH one of {' '.join(map(str, paths))}")
        labels[user_path(path)] = label
    if len(set(labels.values())) < len(labels):
        raise RunError(f"two runs have the same label: {', '.join(labels.values())}; tell them apart with --name")
    return [load_run(path, label) for path, label in labels.items()]


def compare(runs: Sequence[Run], out: Path, axis: str | None = None, everything: bool = False,
            max_seeds: int | None = None) -> Verdict:
    """Compares runs, writes the report, its curves over `axis`, to `out`, and prints the answer, or all there is.

    With `max_seeds` of each baseline and nothing decided, the next step follows the lean. Raises RunError: an axis that
    no run has; OSError: the report cannot be written.
    """
    groups = group_runs(runs)
    if axis and not any(group.has_axis(axis) for group in groups):
        raise RunError(f"--axis={axis}: not known of any of the runs")
    verdict = judge(groups, max_seeds)
    path = report.write(out, groups, verdict, curves.charts(groups, axis))
    print(report.long_answer(groups, verdict) if everything else report.short_answer(verdict, path))
    return verdict


if __name__ == "__main__":
    app.run(main)
