"""What is shown of each group: the short table, the long one, and every number of summary.json."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from trm_jax.comparison import plan
from trm_jax.comparison.criteria import Finding, exact_tag
from trm_jax.comparison.groups import Group
from trm_jax.comparison.held_out import final_evaluations, protocol
from trm_jax.comparison.runs import AXES
from trm_jax.comparison.statistics import Standing
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.verdict import ANSWERS, Validation, Verdict
from trm_jax.comparison.wording import number, percent, seeds, with_spread
from trm_jax.metric_table import HALTED_STEPS, METRICS, Q_HEAD, STEPS

NOTHING = "–"
KEY_AXES = ("epochs", "updates", "hours")
OUTCOMES = {Standing.BETTER: "pass", Standing.WORSE: "fail", Standing.EQUAL: "fail", Standing.UNDECIDED: "undecided"}
Row = Sequence[str]


def key_table(groups: Sequence[Group]) -> list[Row]:
    """A heading, and a row per group: accuracy, held-out score, time to each level on each axis, halting."""
    levels = [percent(level) for level in THRESHOLDS.levels]
    head = ["", "exact", "pass@2", *(f"{axis} to {' / '.join(levels)}" for axis in KEY_AXES), "Q-head", "ACT steps"]
    return [head, *([
        name_of(group), _final(group, exact_tag(group)), _held_out(group), *(_times(group, axis) for axis in KEY_AXES),
        _final(group, Q_HEAD if group.mode == "original" else ""),
        _final(group, HALTED_STEPS if group.has(HALTED_STEPS) else STEPS)] for group in groups)]


def full_table(groups: Sequence[Group]) -> list[Row]:
    """A heading, the length of training on each axis, then every metric that was logged; a topic is a row of one."""
    rows: list[Row] = [["", *(name_of(group) for group in groups)], ["length of training"]]
    for axis, title in AXES.items():
        ends = [[run.end(axis) for run in group.runs] if group.has_axis(axis) else [] for group in groups]
        rows.append([title, *(with_spread(found) if found else "not known" for found in ends)])
    topic = ""
    for metric in METRICS:
        if any(group.has(metric.tag) for group in groups):
            rows += [[metric.topic]] if metric.topic != topic else []
            topic = metric.topic
            rows.append([metric.title, *(_final(group, metric.tag) for group in groups)])
    return rows


def as_text(rows: Sequence[Row]) -> str:
    """The rows in columns for a terminal."""
    full = [row for row in rows if len(row) > 1]
    widths = [max(len(row[column]) for row in full) for column in range(len(full[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
                     if len(row) > 1 else row[0] for row in rows)


def name_of(group: Group) -> str:
    """`o1, 3 seeds`, with what became of them."""
    lost, going = sum(run.diverged for run in group.runs), bool(group.unfinished)
    return f"{group.label}, {seeds(len(group.seeds))}" + (f", {lost} diverged" if lost else "") + (
        ", so far" if going else "")


def leader(finding: Finding) -> str:
    """Who is better, in words."""
    return {Standing.BETTER: f"{finding.subject} better", Standing.WORSE: f"{finding.against} better",
            Standing.EQUAL: "equal", Standing.UNDECIDED: "undecided"}[finding.standing]


def write_summary(path: Path, groups: Sequence[Group], verdict: Verdict) -> None:
    """Writes summary.json: the verdict, its thresholds, and every number of every group, as strict JSON."""
    summary = {"verdict": _verdict(verdict), "thresholds": asdict(THRESHOLDS), "groups": [_group(g) for g in groups]}
    text = json.dumps(_strict(summary), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _verdict(verdict: Verdict) -> dict[str, Any]:
    step = verdict.next_step
    return asdict(verdict) | {
        "findings": [asdict(f) | {"leader": ANSWERS[f.standing]} for f in verdict.findings],
        "validations": [_validation(validation) for validation in verdict.validations],
        "next_step": {"what": step.what, "runs": [asdict(run) for run in step.runs],
                      "commands": [["./launch.sh", *plan.arguments(run)] for run in step.runs]},
    }


def _validation(validation: Validation) -> dict[str, Any]:
    return {"label": validation.label, "mode": validation.mode, "outcome": OUTCOMES[validation.standing],
            "findings": [asdict(f) | {"outcome": OUTCOMES[f.standing]} for f in validation.findings]}


def _group(group: Group) -> dict[str, Any]:
    tag = exact_tag(group)
    axes = [axis for axis in AXES if group.has_axis(axis)]
    return {
        "label": group.label, "mode": group.mode, "preset": group.identity.preset, "size": group.identity.size,
        "seeds": group.seeds, "protocol": protocol(group),
        "final": {metric.tag: group.final(metric.tag) for metric in METRICS if group.has(metric.tag)},
        "reach": {str(level): {axis: group.reach(tag, level, axis) for axis in axes} for level in THRESHOLDS.levels}
        if tag else {},
        "runs": [{
            "path": str(run.path), "label": run.label, "seed": run.seed, "progress": run.progress,
            "diverged": run.diverged, "unfinished": run.is_unfinished, "batches": run.last_step,
            "length": {axis: run.end(axis) for axis in run.axes}, "recorded": asdict(run.identity),
            "notes": list(run.notes),
            "evaluations": [asdict(found) | {"path": str(found.path)} for found in run.evaluations],
        } for run in group.runs],
    }


def _strict(value: Any) -> Any:
    """Strict JSON knows no NaN and no infinity, and its names are texts."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value


def _final(group: Group, tag: str) -> str:
    if not tag or not group.has(tag):
        return NOTHING
    return with_spread([value for value in group.final(tag).values() if np.isfinite(value)] or [np.nan])


def _held_out(group: Group) -> str:
    """Pass@2 with its word: that of the largest full evaluation, or of training."""
    found = [max(final_evaluations(run), key=lambda e: e.tasks, default=None) for run in group.runs if not run.diverged]
    full = [evaluation for evaluation in found if evaluation is not None]
    if full and len(full) == len(found):
        words = sorted({evaluation.protocol or protocol(group) for evaluation in full})
        return f"{with_spread([evaluation.score for evaluation in full])} {'/'.join(words)}"
    text = _final(group, "eval/pass@2")
    return text if text == NOTHING else f"{text} {protocol(group)}"


def _times(group: Group, axis: str) -> str:
    tag = exact_tag(group)
    if not tag or not group.has_axis(axis):
        return NOTHING
    return " / ".join(_time(group.reach(tag, level, axis).values()) for level in THRESHOLDS.levels)


def _time(times: Any) -> str:
    """Mean of the seeds that came there."""
    there = [time for time in times if np.isfinite(time)]
    if not there:
        return "never"
    return number(float(np.mean(there))) + ("" if len(there) == len(times) else f" ({len(there)} of {len(times)})")
