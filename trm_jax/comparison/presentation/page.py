"""The report: one HTML page that needs nothing but itself, and summary.json with everything it says."""

import json
import re
from dataclasses import asdict
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from trm_jax.comparison.judgement import contests, halting
from trm_jax.comparison.judgement.contests import EQUAL, ONLINE, ORIGINAL, UNDECIDED, Contest
from trm_jax.comparison.judgement.criteria import Outcome
from trm_jax.comparison.judgement.speed import ONE_SEED_SPEED_FLOOR, SPEED_MARGIN
from trm_jax.comparison.judgement.validations import Validation
from trm_jax.comparison.judgement.verdict import STANDINGS, Verdict
from trm_jax.comparison.presentation.curves import COLOURS, Chart, axis_of_cells, guides, style
from trm_jax.comparison.presentation.table import Row, values
from trm_jax.comparison.record.groups import Group
from trm_jax.comparison.record.metrics import AXES, LEVELS
from trm_jax.comparison.record.runs import MIN_PROGRESS
from trm_jax.comparison.wording import number, percent, seeds

BADGES = {Outcome.PASS: "✓ pass", Outcome.FAIL: "✕ fail", Outcome.UNDECIDED: "? undecided"}
VALIDATED = {Outcome.PASS: "validated", Outcome.FAIL: "not validated", Outcome.UNDECIDED: "undecided"}
LEADERS = {ORIGINAL: "Original dynamics", ONLINE: "Online learning", EQUAL: "Equal", UNDECIDED: "Undecided"}
DIGITS = 5  # significant digits of the drawn curves


def write_summary(path: Path, groups: list[Group], verdict: Verdict, window_steps: float) -> None:
    """Writes summary.json: the verdict with its thresholds, and every number of every group."""
    summary = {
        "verdict": asdict(verdict)
        | {"validations": [asdict(v) | {"outcome": v.outcome} for v in verdict.validations]},
        "thresholds": {
            "accuracy_margin": contests.ACCURACY_MARGIN,
            "one_seed_floor": contests.ONE_SEED_FLOOR,
            "speed_margin": round(1 - float(np.exp(-SPEED_MARGIN)), 4),
            "one_seed_speed_ratio": round(float(np.exp(ONE_SEED_SPEED_FLOOR)), 4),
            "min_progress": MIN_PROGRESS,
            "q_halt_accuracy": halting.Q_HALT_ACCURACY,
            "min_steps_share": halting.MIN_STEPS_SHARE,
            "max_steps_share": halting.MAX_STEPS_SHARE,
            "right_at_once": halting.RIGHT_AT_ONCE,
            "steps_movement": halting.STEPS_MOVEMENT,
            "levels": list(LEVELS),
        },
        "smoothing_window_batches": window_steps,
        "groups": [values(group, window_steps) for group in groups],
    }
    path.write_text(
        json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )


def write_page(
    path: Path, groups: list[Group], verdict: Verdict, rows: list[Row], charts: list[Chart], axis: str
) -> None:
    """Writes report.html, whose curves first stand over `axis`."""
    parts = {
        "headline": escape(verdict.headline),
        "answer": verdict.answer,
        "why": escape(verdict.why),
        "legend": " ".join(_legend(index, group) for index, group in enumerate(groups)),
        "contests": "".join(_contest(contest) for contest in verdict.contests),
        "validations": "".join(_validation(validation) for validation in verdict.validations)
        + _asides(verdict),
        "next_step": _next_step(verdict),
        "caveats": "".join(f"<li>{escape(caveat)}</li>" for caveat in verdict.caveats),
        "key_table": _numbers(groups, [row for row in rows if row.is_key]),
        "full_table": _numbers(groups, rows),
        "runs": _runs(groups),
        "style": _asset("page.css"),
        "script": _asset("page.js"),
        "data": _data(groups, charts, axis),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], _asset("page.html"))
    path.write_text(page, encoding="utf-8")


def _asset(name: str) -> str:
    return (files("trm_jax.comparison.presentation") / name).read_text(encoding="utf-8")


def _legend(index: int, group: Group) -> str:
    return (
        f'<span data-group="{index}"><b>{escape(group.label)}</b> {group.mode}, {seeds(group.seeds)}</span>'
    )


def _contest(contest: Contest) -> str:
    lines = "".join(f"<p>{escape(line)}</p>" for line in contest.evidence.split("; ") if line)
    reason = f'<p class="reason">{escape(contest.reason)}</p>' if contest.reason else ""
    return (
        f'<div class="contest"><h3>{escape(contest.question)}</h3>'
        f'<p class="leader">{LEADERS[contest.leader]}</p>'
        f'{lines}{reason}<p class="threshold">Needs: {escape(contest.threshold)}.</p></div>'
    )


def _badge(outcome: Outcome) -> str:
    return f'<span class="badge {outcome}">{BADGES[outcome]}</span>'


def _validation(validation: Validation) -> str:
    rows = [
        [
            escape(criterion.name),
            _badge(criterion.outcome),
            f"{escape(criterion.evidence) or '–'}<small>{escape(criterion.reason)}</small>",
            escape(criterion.threshold),
        ]
        for criterion in validation.criteria
    ]
    table = _html_table(["Criterion", "", "Evidence", "Threshold"], rows, "criteria")
    return f"<h3>{escape(validation.title)}: {VALIDATED[validation.outcome]}</h3>{table}"


def _asides(verdict: Verdict) -> str:
    if not verdict.asides:
        return ""
    rows = [
        [escape(aside.label), escape(aside.against), STANDINGS[aside.standing], escape(aside.evidence)]
        for aside in verdict.asides
    ]
    table = _html_table(["Run", "Against", "It is", "Evidence"], rows)
    return f"<h3>The other runs: final train accuracy</h3>{table}"


def _next_step(verdict: Verdict) -> str:
    commands = escape("\n".join(verdict.next_step.commands))
    return f"<p>{escape(verdict.next_step.what)}</p>" + (f"<pre>{commands}</pre>" if commands else "")


def _numbers(groups: list[Group], rows: list[Row]) -> str:
    """The rows as a table with a heading for each topic."""
    head = [
        "",
        *(f'<span data-group="{index}">{escape(group.label)}</span>' for index, group in enumerate(groups)),
    ]
    body: list[list[str]] = []
    topic = None
    for row in rows:
        if row.topic != topic:
            topic = row.topic
            body.append([escape(topic)])
        cells = [f"{escape(cell.text)}<small>{escape(cell.note)}</small>" for cell in row.cells]
        body.append([escape(row.name), *cells])
    return _html_table(head, body)


def _runs(groups: list[Group]) -> str:
    rows = []
    for group in groups:
        for run in group.runs:
            missing = [f"{AXES[axis]} not known: {why}" for axis, why in run.missing_axes.items()]
            shortfall = [run.shortfall] if run.shortfall else []
            remarks = "<br>".join(escape(note) for note in [*missing, *shortfall, *run.notes]) or "–"
            done = "" if run.progress is None else f", {percent(run.progress)} of its configured epochs"
            length = f"{number(run.last_step)} batches{done}"
            rows.append([escape(group.label), escape(str(run.path)), length, remarks])
    return _html_table(["Run", "Folder", "Length", "Remarks"], rows)


def _html_table(head: list[str], rows: list[list[str]], css_class: str = "") -> str:
    """A table of cells that are HTML already; a row of one cell is a heading across the table."""
    body = "".join(
        f"<tr><th>{row[0]}</th>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>"
        if len(row) > 1
        else f'<tr class="topic"><th colspan="{len(head)}">{row[0]}</th></tr>'
        for row in rows
    )
    heads = "".join(f"<th>{cell}</th>" for cell in head)
    table = f'<table class="{css_class}"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _data(groups: list[Group], charts: list[Chart], axis: str) -> str:
    """What page.js draws; `</` is kept out of it, since it would end the script element."""
    data: dict[str, Any] = {
        "axis": axis,
        "axes": AXES,
        "groups": [
            {
                "label": group.label,
                "colour": COLOURS.index(style(index).colour),
                "dash": " ".join(map(str, style(index).dash)),
                "x": {axis: _rounded(axis_of_cells(group, axis)) for axis in AXES if group.has_axis(axis)},
            }
            for index, group in enumerate(groups)
        ],
        "charts": [
            {
                "title": chart.metric.title,
                "tag": chart.metric.tag,
                "topic": chart.metric.topic,
                "log": chart.metric.log_scale,
                "guides": guides(chart.metric, groups),
                "lines": [
                    {"group": line.group, "mean": _rounded(line.mean), "spread": _rounded(line.spread)}
                    for line in chart.lines
                ],
            }
            for chart in charts
        ],
    }
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")


def _rounded(values: np.ndarray) -> list[float | None]:
    return [float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None for value in values]
