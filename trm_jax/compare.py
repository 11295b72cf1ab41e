"""▶ From run folders to an answer: which training dynamics wins, on what evidence, and what to run next.

    python -m trm_jax.compare runs/o1 runs/l1 [runs/…] [--out=report/] [--name runs/o1=O1] [--axis=updates]

Reads the TensorBoard event files of each folder (ours, or any other producer's with the same tags), prints a
table and the verdict by the plan's own criteria, and writes report.html (one file, works offline), PNG
pictures and summary.json.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from trm_jax.comparison.judgement.verdict import STANDINGS, Verdict, judge
from trm_jax.comparison.presentation import page, plots, table
from trm_jax.comparison.presentation.curves import charts as charts_of
from trm_jax.comparison.presentation.page import VALIDATED
from trm_jax.comparison.record.events import RunError
from trm_jax.comparison.record.groups import group_runs, smoothing_window
from trm_jax.comparison.record.metrics import AXES
from trm_jax.comparison.record.runs import Run, load_run
from trm_jax.paths import user_path

_OUT = flags.DEFINE_string(
    "out", "report", "Folder for report.html, the PNG pictures and summary.json; made if missing."
)
_NAMES = flags.DEFINE_multi_string(
    "name", [], "PATH=LABEL: what a run is called; once for each run. Default: its folder."
)
_AXIS = flags.DEFINE_enum(
    "axis",
    None,
    list(AXES),
    "What the curves are laid over each other by, in the pictures and at first in the page. Default: an axis on "
    "which the runs are equally long.",
)


def main(argv: Sequence[str]) -> None:
    try:
        compare(argv[1:], user_path(_OUT.value), _NAMES.value, _AXIS.value)
    except RunError as error:
        sys.exit(f"compare: {error}")
    except OSError as error:  # of the report
        sys.exit(f"compare: {error.filename}: {error.strerror}")


def compare(folders: Sequence[str], out: Path, names: Sequence[str] = (), axis: str | None = None) -> Verdict:
    """Compares the runs in `folders` and writes the report, its curves over `axis`, to `out`.

    Raises:
        RunError: no folders, a folder that is no run, a label that cannot be given, or an axis that no run has.
    """
    # ── Runs ──
    runs = load_runs(folders, names)
    groups = group_runs(runs)
    for group in groups:
        for run in group.runs:
            for note in run.notes:
                print(f"{run.label}: {note}")

    if axis and not any(group.has_axis(axis) for group in groups):
        raise RunError(f"--axis={axis}: not known of any of the runs")

    # ── Numbers ──
    window_steps = smoothing_window(groups)
    rows = table.rows(groups, window_steps)
    print(table.as_text(groups, rows))

    # ── Verdict ──
    verdict = judge(groups)
    print(f"\n{verdict_text(verdict)}")

    # ── Report ──
    out.mkdir(parents=True, exist_ok=True)
    charts, axis = charts_of(groups), axis or plots.usual_axis(groups)
    plots.save_pngs(out, groups, charts, verdict, axis)
    page.write_summary(out / "summary.json", groups, verdict, window_steps)
    page.write_page(out / "report.html", groups, verdict, rows, charts, axis)
    print(f"\nReport: {out / 'report.html'}")
    return verdict


def load_runs(folders: Sequence[str], names: Sequence[str]) -> list[Run]:
    """Reads every folder once, under its label.

    Raises:
        RunError: see `compare`.
    """
    paths = [user_path(folder) for folder in folders]
    if not paths:
        raise RunError("name at least one run folder, for example: python -m trm_jax.compare runs/o1 runs/l1")
    if len({path.resolve() for path in paths}) < len(paths):
        raise RunError("a run folder is named twice")
    return [load_run(path, label) for path, label in zip(paths, labels_of(paths, names), strict=True)]


def labels_of(paths: list[Path], names: Sequence[str]) -> list[str]:
    """One label per path: the one it is given, or its last part, or all of it where last parts are equal.

    Raises:
        RunError: a `PATH=LABEL` that names none of the paths, or a label given twice.
    """
    given = {}
    for name in names:
        path, separator, label = name.rpartition("=")
        if not separator or not label or user_path(path) not in paths:
            raise RunError(f"--name {name}: write PATH=LABEL, with PATH one of {' '.join(map(str, paths))}")
        given[user_path(path)] = label
    last_parts = [path.resolve().name for path in paths]
    labels = [
        given.get(path, part if last_parts.count(part) == 1 else str(path))
        for path, part in zip(paths, last_parts, strict=True)
    ]
    if len(set(labels)) < len(labels):
        raise RunError(
            f"two runs have the same label: {', '.join(labels)}; tell them apart with --name PATH=LABEL"
        )
    return labels


def verdict_text(verdict: Verdict) -> str:
    """The verdict for a terminal: the answer, the criteria with their evidence, the next step."""
    lines = [f"Verdict: {verdict.headline}. {verdict.why}"]
    for validation in verdict.validations:
        lines.append(f"{validation.title}: {VALIDATED[validation.outcome]}")
        for criterion in validation.criteria:
            lines.append(f"  {criterion.outcome:<9}  {criterion.name} ({criterion.threshold})")
            details = [text for text in (criterion.evidence, criterion.reason) if text]
            lines += [f"             {detail}" for detail in details]
    for aside in verdict.asides:
        words = f"{STANDINGS[aside.standing]} ({aside.evidence})"
        lines.append(f"{aside.label} against {aside.against}: final train accuracy {words}")
    lines += [f"Note: {caveat}" for caveat in verdict.caveats]
    lines.append(f"Next: {verdict.next_step.what}")
    lines += [f"  {command}" for command in verdict.next_step.commands]
    return "\n".join(lines)


if __name__ == "__main__":
    app.run(main)
