"""What a comparison says, as rows of text: the terminal, report.html and summary.json take all they show from here."""

import json
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from trm_jax import pages
from trm_jax.comparison import plan
from trm_jax.comparison.criteria import Finding
from trm_jax.comparison.curves import COLOURS
from trm_jax.comparison.groups import Group
from trm_jax.comparison.runs import AXES, ORIGINAL
from trm_jax.comparison.statistics import Standing
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.verdict import Verdict
from trm_jax.comparison.wording import number, seeds, with_spread
from trm_jax.metric_table import METRICS, PASS_2, Q_HEAD

NOTHING = "–"
WIDTH, SHOWN_LINES = 110, 15  # characters of a line that is wrapped; lines at most, without --all
OUTCOMES = {Standing.BETTER: "pass", Standing.WORSE: "fail", Standing.EQUAL: "fail", Standing.UNDECIDED: "undecided"}
BADGES = {"pass": "badge good", "fail": "badge bad"}
ARROWS = {"up": " ↑", "down": " ↓", "": ""}  # where better is
Row = Sequence[str]  # of a single cell: a heading across the table


def key_table(groups: Sequence[Group]) -> list[Row]:
    """A heading, and a row per group: accuracy, held-out score, time to each level on each axis, halting."""
    levels, axes = " / ".join(f"{100 * level:.0f}" for level in THRESHOLDS.levels), ("epochs", "updates", "hours")
    return [["", "exact", "pass@2", *(f"{axis} to {levels} %" for axis in axes), "Q-head", "ACT steps"], *(
        [_name(group), _final(group, group.exact), _score(group), *(_times(group, axis) for axis in axes),
         _final(group, Q_HEAD if group.mode == ORIGINAL else ""), _final(group, group.steps)] for group in groups)]


def full_table(groups: Sequence[Group]) -> list[Row]:
    """A heading, the length of training on each axis, then every metric that was logged, by topic."""
    rows: list[Row] = [["", *map(_name, groups)], ["dynamics", *(group.mode for group in groups)],
                       ["length of training"]]
    rows += [[title, *(with_spread([run.end(axis) for run in group.runs]) if group.has_axis(axis) else "not known"
                       for group in groups)] for axis, title in AXES.items()]
    for metric in METRICS:
        if any(group.has(metric.tag) for group in groups):
            rows += [[metric.topic]] if [metric.topic] not in rows else []
            rows.append([metric.title + ARROWS[metric.better], *(_final(group, metric.tag) for group in groups)])
    return rows


def criteria(verdict: Verdict) -> list[Row]:
    """Question, who is better, and why, of mode against mode; then whether each does what the plan hopes of it."""
    return [*([finding.question, *_outcome(finding)] for finding in verdict.findings),
            *([hope.question, OUTCOMES[hope.standing], ", ".join(
                f"{part.question}: {OUTCOMES[part.standing]}" for part in hope.parts)] for hope in verdict.validations)]


def details(verdict: Verdict) -> list[Row]:
    """The parts of what is hoped of the original dynamics, and every other group against each baseline."""
    parts = [part for hope in verdict.validations if hope.against == ORIGINAL for part in hope.parts]
    rows = [(part, [OUTCOMES[part.standing], _outcome(part)[1]]) for part in parts]
    rows += [(finding, _outcome(finding)) for finding in verdict.others]
    return [[f"{finding.question}, {finding.subject} against {finding.against}", *said] for finding, said in rows]


def sections(groups: Sequence[Group], verdict: Verdict) -> dict[str, list[Row]]:
    """Title → rows of all that is said besides the headline, for the page and for --all."""
    return {"Key numbers": key_table(groups),
            "Criteria": [["criterion", "", "evidence"], *criteria(verdict), *details(verdict)],
            "Next": [[verdict.next_step.what], *([command] for command in commands(verdict))],
            "Before you believe it": [[caveat] for caveat in verdict.caveats or ["Nothing special."]],
            "All numbers": full_table(groups)}


def commands(verdict: Verdict) -> list[str]:
    return [shlex.join(plan.command(run)) for run in verdict.next_step.runs]


def _outcome(finding: Finding) -> list[str]:
    """Who is better, and all that is said about it."""
    words = {Standing.BETTER: f"{finding.subject} better", Standing.WORSE: f"{finding.against} better"}
    said = finding.evidence, finding.reason, f"needs {finding.needs}"
    return [words.get(finding.standing, finding.standing), "; ".join(filter(None, said))]


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
    _, best = max(group.scores().items(), key=lambda found: (found[0] != PASS_2, found[1].tasks), default=("", None))
    return f"{with_spread(best.by_seed.values())} {best.protocol}" if best else NOTHING


def _times(group: Group, axis: str) -> str:
    """Mean over the seeds that came to each level."""
    texts = []
    for level in THRESHOLDS.levels if group.exact and group.has_axis(axis) else ():
        times = list(group.reach(group.exact, level, axis).values())
        there = [time for time in times if np.isfinite(time)]
        some = "" if len(there) == len(times) else f" ({len(there)} of {len(times)})"
        texts.append(number(float(np.mean(there))) + some if there else "never")
    return "never" if set(texts) == {"never"} else " / ".join(texts) or NOTHING


def short_answer(verdict: Verdict, report: Path) -> str:
    """The answer, the criteria with their numbers and the next command, in at most SHOWN_LINES lines."""
    answer, (first, *others) = textwrap.wrap(verdict.headline, WIDTH, max_lines=3), commands(verdict) or [""]
    more, count = f"  (and {len(others)} more: --all)" if others else "", len(verdict.caveats)
    end = [f"Next: {verdict.next_step.what}", *([f"  {first}{more}"] if first else []),
           f"Report: {report} (" + f"{count} caveat{'s' * (count > 1)} and " * bool(count) + "all numbers: --all)"]
    room = SHOWN_LINES - len(answer) - len(end)
    rows = criteria(verdict)[:room]
    found = [f"  {question:<36}{word:<{max(len(row[1]) for row in rows) + 2}}{text.split(';')[0]}"
             for question, word, text in rows]
    return "\n".join([*answer, *found, *end])


def long_answer(groups: Sequence[Group], verdict: Verdict) -> str:
    """Everything: all numbers, every criterion with threshold, evidence and reason, all caveats and commands."""
    parts = [f"{title}\n{as_text(rows)}" for title, rows in sections(groups, verdict).items()]
    return "\n\n".join([f"{verdict.headline}.", *parts])


def as_text(rows: Sequence[Row]) -> str:
    """The rows in columns for a terminal, the last one wrapped."""
    columns = [*zip(*(row for row in rows if len(row) > 1), strict=True)]
    widths = [max(map(len, column)) + 2 for column in columns[:-1]]
    return "\n".join("".join(map(str.ljust, row, widths)) + f"\n{' ' * sum(widths)}".join(textwrap.wrap(row[-1], WIDTH))
                     if len(row) > 1 else row[0] for row in rows)


def write(folder: Path, groups: Sequence[Group], verdict: Verdict, charts: Sequence[tuple[str, str]]) -> Path:
    """Writes summary.json, strict JSON with every number, and report.html, whose path it returns."""
    folder.mkdir(parents=True, exist_ok=True)
    said = asdict(verdict)
    said["next_step"]["commands"] = [plan.command(run) for run in verdict.next_step.runs]
    found = {"verdict": said, "thresholds": asdict(THRESHOLDS), "groups": [_numbers(group) for group in groups]}
    strict = json.loads(json.dumps(found, default=float), parse_constant=lambda _: None)  # no NaN and no infinity
    (folder / "summary.json").write_text(json.dumps(strict, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page(groups, verdict, charts), encoding="utf-8")
    return folder / "report.html"


def page(groups: Sequence[Group], verdict: Verdict, charts: Sequence[tuple[str, str]]) -> str:
    """The comparison as one HTML page that needs nothing but itself."""
    found = sections(groups, verdict)
    marks = {_name(group): f'<i class="swatch" style="background: var(--g{index % len(COLOURS)})"></i>'
             + escape(_name(group)) for index, group in enumerate(groups)}
    marks |= {word: f'<span class="{BADGES.get(word, "badge")}">{escape(word)}</span>'
              for _, word, _ in found["Criteria"][1:]}
    marks |= {command: f"<code>{escape(command)}</code>" for command in commands(verdict)}
    tables = {title: f'<h2>{title}</h2><div class="card {title.split()[0].lower()}">{_table(rows, marks)}</div>'
              for title, rows in found.items()}
    return pages.build(__package__, {
        "title": escape(verdict.headline), "key_table": tables.pop("Key numbers"), "tables": "\n".join(tables.values()),
        "charts": "".join(f'<figure class="card"><figcaption>{escape(title)}</figcaption>{svg}</figure>'
                          for title, svg in charts)})


def _table(rows: Sequence[Row], marks: Mapping[str, str]) -> str:
    """The rows, the first of them the heading unless it is a single cell; `marks` is HTML that stands for a text."""
    width = max(map(len, rows))
    texts = ([marks.get(text, escape(text)) for text in row] for row in rows)
    return "<table>" + "".join(
        f'<tr><td colspan="{width}">{row[0]}</td></tr>' if len(row) == 1 else
        f"<tr><th>{row[0]}</th>{''.join(f'<td>{text}</td>' for text in row[1:])}</tr>" for row in texts) + "</table>"


def _numbers(group: Group) -> dict[str, Any]:
    axes = [axis for axis in AXES if group.has_axis(axis) and group.exact]
    return {
        "label": group.label, "mode": group.mode, "preset": group.identity.preset, "size": group.identity.size,
        "seeds": group.seeds, "protocol": group.protocol,
        "final": {metric.tag: group.final(metric.tag) for metric in METRICS if group.has(metric.tag)},
        "reach": {level: {axis: group.reach(group.exact, level, axis) for axis in axes} for level in THRESHOLDS.levels},
        "runs": [{
            "path": str(run.path), "label": run.label, "seed": run.seed, "progress": run.progress,
            "diverged": run.diverged, "unfinished": run.is_unfinished, "batches": run.last_step,
            "length": {axis: run.end(axis) for axis in run.axes}, "recorded": asdict(run.identity),
            "notes": run.notes, "evaluations": [asdict(found) for found in run.evaluations]} for run in group.runs]}
