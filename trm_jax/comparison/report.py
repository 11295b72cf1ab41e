"""What a comparison says, as rows of text: the terminal, report.html and summary.json take all they show from here."""

import json
import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from trm_jax import pages
from trm_jax.comparison import held_out, plan
from trm_jax.comparison.criteria import Finding, exact_tag
from trm_jax.comparison.curves import COLOURS, Chart, svg
from trm_jax.comparison.groups import Group
from trm_jax.comparison.runs import AXES
from trm_jax.comparison.statistics import Standing
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.verdict import Verdict
from trm_jax.comparison.wording import number, percent, seeds, with_spread
from trm_jax.metric_table import HALTED_STEPS, METRICS, Q_HEAD, STEPS

NOTHING = "–"
WIDTH, SHOWN_LINES = 110, 15  # characters of a line that is wrapped; lines at most, without --all
OUTCOMES = {Standing.BETTER: "pass", Standing.WORSE: "fail", Standing.EQUAL: "fail", Standing.UNDECIDED: "undecided"}
BADGES = {"pass": ("good", "✓ "), "fail": ("bad", "✕ "), "undecided": ("", "? ")}  # style and mark
Row = Sequence[str]  # of a single cell: a heading across the table


def key_table(groups: Sequence[Group]) -> list[Row]:
    """A heading, and a row per group: accuracy, held-out score, time to each level on each axis, halting."""
    levels, axes = " / ".join(map(percent, THRESHOLDS.levels)), ("epochs", "updates", "hours")
    return [["", "exact", "pass@2", *(f"{axis} to {levels}" for axis in axes), "Q-head", "ACT steps"], *(
        [_name(group), _final(group, exact_tag(group)), _score(group), *(_times(group, axis) for axis in axes),
         _final(group, Q_HEAD if group.mode == plan.ORIGINAL else ""),
         _final(group, HALTED_STEPS if group.has(HALTED_STEPS) else STEPS)] for group in groups)]


def full_table(groups: Sequence[Group]) -> list[Row]:
    """A heading, the length of training on each axis, then every metric that was logged, by topic."""
    rows: list[Row] = [["", *map(_name, groups)], ["length of training"]]
    rows += [[title, *(with_spread([run.end(axis) for run in group.runs]) if group.has_axis(axis) else "not known"
                       for group in groups)] for axis, title in AXES.items()]
    for metric in METRICS:
        if any(group.has(metric.tag) for group in groups):
            rows += [[metric.topic]] if [metric.topic] not in rows else []
            rows.append([metric.title, *(_final(group, metric.tag) for group in groups)])
    return rows


def criteria(verdict: Verdict, everything: bool = True) -> list[Row]:
    """Question, who is better or whether it is passed, and why: mode against mode, each mode's own, the other runs."""
    def row(finding: Finding, words: Mapping[Standing, str]) -> Row:
        return [f"{finding.question}, {finding.subject} against {finding.against}" if everything else finding.question,
                words.get(finding.standing, finding.standing), "; ".join(filter(None, (
                    finding.evidence, finding.reason, f"needs {finding.needs}")))]

    def against(findings: Iterable[Finding]) -> list[Row]:
        return [row(f, {Standing.BETTER: f"{f.subject} better", Standing.WORSE: f"{f.against} better"})
                for f in findings]

    rows = against(verdict.findings)
    for hope in verdict.validations:
        rows.append([hope.question, OUTCOMES[hope.standing],
                     ", ".join(f"{part.question}: {OUTCOMES[part.standing]}" for part in hope.parts)])
        rows += [row(part, OUTCOMES) for part in hope.parts if everything]
    return rows + (against(verdict.others) if everything else [])


def commands(verdict: Verdict) -> list[str]:
    return [shlex.join(plan.command(run)) for run in verdict.next_step.runs]


def _name(group: Group) -> str:
    """`o1, 3 seeds`, with what became of them."""
    lost = len(group.runs) - len(group.sound)
    return f"{group.label}, {seeds(len(group.seeds))}" + (f", {lost} diverged" if lost else "") + (
        ", so far" if group.unfinished else "")


def _final(group: Group, tag: str) -> str:
    values = [value for value in group.final(tag).values() if np.isfinite(value)] if group.has(tag) else []
    return with_spread(values) if values else NOTHING


def _score(group: Group) -> str:
    """Pass@2 with its word: that of the largest full evaluation, or of training."""
    if not (found := held_out.scores(group)):
        return NOTHING
    kind = max(found, key=lambda kind: held_out.telling(found, kind))
    return f"{with_spread([evaluation.score for evaluation in found[kind].values()])} {kind[1]}"


def _times(group: Group, axis: str) -> str:
    """Mean over the seeds that came to each level."""
    texts = []
    for level in THRESHOLDS.levels if exact_tag(group) and group.has_axis(axis) else ():
        times = list(group.reach(exact_tag(group), level, axis).values())
        there = [time for time in times if np.isfinite(time)]
        some = "" if len(there) == len(times) else f" ({len(there)} of {len(times)})"
        texts.append(number(float(np.mean(there))) + some if there else "never")
    return " / ".join(texts) or NOTHING


# ── Terminal ──


def short_answer(groups: Sequence[Group], verdict: Verdict, report: Path) -> str:
    """The answer, the criteria with their numbers and the next command, in at most SHOWN_LINES lines."""
    answer, (first, *others) = textwrap.wrap(verdict.headline, WIDTH, max_lines=3), commands(verdict) or [""]
    more = f"  (and {len(others)} more: --all)" if others else ""
    caveats = f"{len(verdict.caveats)} caveat{'s' * (len(verdict.caveats) > 1)} and " if verdict.caveats else ""
    end = [f"Next: {verdict.next_step.what}", *([f"  {first}{more}"] if first else []),
           f"Report: {report} ({caveats}all numbers: --all)"]
    room = SHOWN_LINES - len(answer) - len(end)
    rows = [f"  {question:<36}{word:<14}{text.split(';')[0]}" for question, word, text in criteria(verdict, False)]
    rows = rows[:room]
    table = as_text([[*row[:4], *row[5:]] for row in key_table(groups)]).splitlines()
    return "\n".join([*answer, *rows, *(table if len(table) <= room - len(rows) else []), *end])


def long_answer(groups: Sequence[Group], verdict: Verdict) -> str:
    """Everything: all numbers, every criterion with threshold, evidence and reason, all caveats and commands."""
    lines = [as_text(key_table(groups)), "", as_text(full_table(groups)), "", f"{verdict.headline}.", verdict.why, ""]
    for question, word, text in criteria(verdict):
        lines += [f"{word:<14}{question}", textwrap.indent(textwrap.fill(text, WIDTH), " " * 14)]
    return "\n".join([*lines, "", *(f"Note: {caveat}" for caveat in verdict.caveats),
                      f"Next: {verdict.next_step.what}", *(f"  {command}" for command in commands(verdict))])


def as_text(rows: Sequence[Row]) -> str:
    """The rows in columns for a terminal."""
    widths = [max(map(len, column)) for column in zip(*(row for row in rows if len(row) > 1), strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() if len(row) > 1 else row[0] for row in rows)


# ── Files ──


def write(folder: Path, groups: Sequence[Group], verdict: Verdict, charts: Sequence[Chart]) -> Path:
    """Writes summary.json, strict JSON with every number, and report.html, whose path it returns."""
    folder.mkdir(parents=True, exist_ok=True)
    said = asdict(verdict)
    said["next_step"]["commands"] = [plan.command(run) for run in verdict.next_step.runs]
    found = {"verdict": said, "thresholds": asdict(THRESHOLDS), "groups": [_numbers(group) for group in groups]}
    strict = json.loads(json.dumps(found, default=float), parse_constant=lambda _: None)  # no NaN and no infinity
    (folder / "summary.json").write_text(json.dumps(strict, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page(groups, verdict, charts), encoding="utf-8")
    return folder / "report.html"


def page(groups: Sequence[Group], verdict: Verdict, charts: Sequence[Chart]) -> str:
    """The comparison as one HTML page that needs nothing but itself."""
    shown, swatch = criteria(verdict), '<i class="swatch" style="background: var(--g{})"></i>{}'
    swatches = {index: swatch.format(index % len(COLOURS), "") for index in range(len(groups))}
    marks = {_name(group): swatches[index] + escape(_name(group)) for index, group in enumerate(groups)}
    for word in {row[1] for row in shown}:
        style, mark = BADGES.get(word, ("", ""))
        marks[word] = f'<span class="badge {style}">{mark}{escape(word)}</span>'
    return pages.build(__package__, {
        "title": escape(verdict.headline), "headline": escape(verdict.headline), "why": escape(verdict.why),
        "legend": " ".join(f"<span>{swatches[index]}<b>{escape(group.label)}</b> {group.mode}</span>"
                           for index, group in enumerate(groups)),
        "key_table": _table(key_table(groups), marks), "full_table": _table(full_table(groups), marks),
        "charts": "".join(f'<figure class="card"><figcaption>{escape(chart.title)}</figcaption>'
                          f"{svg(chart, groups)}</figure>" for chart in charts),
        "criteria": _table([["criterion", "", "evidence"], *shown], marks),
        "next_step": escape(verdict.next_step.what), "commands": escape("\n".join(commands(verdict))),
        "caveats": "".join(f"<li>{escape(caveat)}</li>" for caveat in verdict.caveats or ["Nothing special."])})


def _table(rows: Sequence[Row], marks: Mapping[str, str]) -> str:
    """The rows, the first of them the heading; `marks` is HTML that stands for the text of a cell."""
    def cells(kind: str, texts: Iterable[str]) -> str:
        return "".join(f"<{kind}>{marks.get(text, escape(text))}</{kind}>" for text in texts)

    body = "".join(f"<tr>{cells('th', row[:1])}{cells('td', row[1:])}</tr>" if len(row) > 1 else
                   f'<tr class="topic"><th colspan="{len(rows[0])}">{escape(row[0])}</th></tr>' for row in rows[1:])
    return f"<table><thead><tr>{cells('th', rows[0])}</tr></thead><tbody>{body}</tbody></table>"


def _numbers(group: Group) -> dict[str, Any]:
    tag, axes = exact_tag(group), [axis for axis in AXES if group.has_axis(axis)]
    return {
        "label": group.label, "mode": group.mode, "preset": group.identity.preset, "size": group.identity.size,
        "seeds": group.seeds, "protocol": held_out.protocol(group),
        "final": {metric.tag: group.final(metric.tag) for metric in METRICS if group.has(metric.tag)},
        "reach": {level: {axis: group.reach(tag, level, axis) for axis in axes if tag} for level in THRESHOLDS.levels},
        "runs": [{
            "path": str(run.path), "label": run.label, "seed": run.seed, "progress": run.progress,
            "diverged": run.diverged, "unfinished": run.is_unfinished, "batches": run.last_step,
            "length": {axis: run.end(axis) for axis in run.axes}, "recorded": asdict(run.identity),
            "notes": run.notes, "evaluations": [asdict(found) for found in run.evaluations]} for run in group.runs]}
