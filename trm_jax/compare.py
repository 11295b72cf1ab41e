"""▶ From run folders to an answer: which training dynamics wins, on what evidence, and what to run next.

    python -m trm_jax.compare runs/o1 runs/l1 [runs/…] [--out=report/] [--name runs/o1=O1] [--axis=updates] [--all]

Reads the TensorBoard event files of each folder (ours, or any other writer's with the same tags), prints the answer
by the plan's own criteria, and writes report.html (one file, works offline) and summary.json.
"""

import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from trm_jax.comparison import curves, plan, tables
from trm_jax.comparison.criteria import Finding
from trm_jax.comparison.events import RunError
from trm_jax.comparison.groups import Group, group_runs
from trm_jax.comparison.report import page
from trm_jax.comparison.runs import AXES, Run, load_run
from trm_jax.comparison.verdict import Verdict, judge
from trm_jax.paths import user_path

_OUT = flags.DEFINE_string("out", "report", "Folder for report.html and summary.json; made if missing.")
_NAMES = flags.DEFINE_multi_string(
    "name", [], "PATH=LABEL: what a run is called; once for each run. Default: its folder.")
_AXIS = flags.DEFINE_enum(
    "axis", None, list(AXES), "What the curves are laid over each other by. Default: an axis on which the runs are "
    "equally long.")
_ALL = flags.DEFINE_bool("all", False, "Print every number, criterion, caveat and command.")

WIDTH = 110  # characters of a line that is wrapped
SHOWN_LINES = 15  # at most, without --all


def main(argv: Sequence[str]) -> None:
    try:
        compare(argv[1:], user_path(_OUT.value), _NAMES.value, _AXIS.value, _ALL.value)
    except RunError as error:
        sys.exit(f"compare: {error}")
    except OSError as error:  # of the report
        sys.exit(f"compare: {error.filename}: {error.strerror}")


def compare(folders: Sequence[str], out: Path, names: Sequence[str] = (), axis: str | None = None,
            everything: bool = False, max_seeds: int | None = None) -> Verdict:
    """Compares the runs in `folders` and writes the report, its curves over `axis`, to `out`.

    Args:
        everything: print all there is.
        max_seeds: with so many of each baseline and nothing decided, the next step follows the lean.

    Raises:
        RunError: no folders, a folder that is no run, a label that cannot be given, or an axis that no run has.
        OSError: the report cannot be written.
    """
    # ── Runs ──
    groups = group_runs(load_runs(folders, names))
    if axis and not any(group.has_axis(axis) for group in groups):
        raise RunError(f"--axis={axis}: not known of any of the runs")

    # ── Verdict ──
    verdict = judge(groups, max_seeds)

    # ── Report ──
    out.mkdir(parents=True, exist_ok=True)
    tables.write_summary(out / "summary.json", groups, verdict)
    (out / "report.html").write_text(page.build(groups, verdict, curves.charts(groups, axis)), encoding="utf-8")
    print(long_answer(groups, verdict) if everything else short_answer(groups, verdict, out / "report.html"))
    return verdict


def load_runs(folders: Sequence[str], names: Sequence[str] = ()) -> list[Run]:
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
    labels = [given.get(path, part if last_parts.count(part) == 1 else str(path))
              for path, part in zip(paths, last_parts, strict=True)]
    if len(set(labels)) < len(labels):
        raise RunError(f"two runs have the same label: {', '.join(labels)}; tell them apart with --name PATH=LABEL")
    return labels


def short_answer(groups: Sequence[Group], verdict: Verdict, report: Path) -> str:
    """The answer, the criteria with their numbers and the next command, in at most SHOWN_LINES lines."""
    answer = textwrap.wrap(verdict.headline, WIDTH, max_lines=3)
    criteria = [f"  {f.question:<36}{tables.leader(f):<14}{(f.evidence or f.reason).split(';')[0]}"
                for f in verdict.findings]
    criteria += [f"  {validation.label + ' as the plan hopes':<36}{tables.OUTCOMES[validation.standing]:<14}"
                 + "; ".join(f"{f.question}: {tables.OUTCOMES[f.standing]}" for f in validation.findings)
                 for validation in verdict.validations]
    runs = verdict.next_step.runs
    more = f"  (and {len(runs) - 1} more: --all, or ./launch.sh suite plan)" if len(runs) > 1 else ""
    step = [f"Next: {verdict.next_step.what}", *(f"  {command_line(run)}{more}" for run in runs[:1])]
    count = len(verdict.caveats)
    caveats = f"{count} caveat{'s' * (count > 1)} and " if count else ""
    end = [f"Report: {report} ({caveats}all numbers: --all)"]
    table = tables.as_text([[*row[:4], *row[5:]] for row in tables.key_table(groups)]).splitlines()
    room = SHOWN_LINES - len(answer) - len(step) - len(end)
    criteria = criteria[:room]
    return "\n".join([*answer, *criteria, *(table if len(table) <= room - len(criteria) else []), *step, *end])


def long_answer(groups: Sequence[Group], verdict: Verdict) -> str:
    """Everything: all numbers, every criterion with threshold, evidence and reason, all caveats and commands."""
    lines = [tables.as_text(tables.key_table(groups)), "", tables.as_text(tables.full_table(groups)), ""]
    lines += [f"{verdict.headline}.", verdict.why]
    sections: list[tuple[str, tuple[Finding, ...], bool]] = [("mode against mode", verdict.findings, False)]
    sections += [(f"{v.label} ({v.mode}): {tables.OUTCOMES[v.standing]}", v.findings, True)
                 for v in verdict.validations]
    sections += [("the other runs", verdict.others, False)] if verdict.others else []
    for title, findings, is_own in sections:
        lines += ["", title]
        for f in findings:
            word = tables.OUTCOMES[f.standing] if is_own else tables.leader(f)
            lines.append(f"  {word:<14}{f.question}, {f.subject} against {f.against}: needs {f.needs or '–'}")
            lines += [f"{'':<16}{text}" for text in (f.evidence, f.reason) if text]
    lines += ["", *(f"Note: {caveat}" for caveat in verdict.caveats), f"Next: {verdict.next_step.what}"]
    return "\n".join([*lines, *(f"  {command_line(run)}" for run in verdict.next_step.runs)])


def command_line(run: plan.PlannedRun) -> str:
    return shlex.join(["./launch.sh", *plan.arguments(run)])


if __name__ == "__main__":
    app.run(main)
