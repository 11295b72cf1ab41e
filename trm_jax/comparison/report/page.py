"""The comparison as one HTML page that needs nothing but itself: the answer, the numbers, the curves, the criteria."""

import shlex
from collections.abc import Sequence
from html import escape

from trm_jax.comparison import plan
from trm_jax.comparison.criteria import Finding
from trm_jax.comparison.curves import COLOURS, Chart, svg
from trm_jax.comparison.groups import Group
from trm_jax.comparison.statistics import Standing
from trm_jax.comparison.tables import OUTCOMES, Row, full_table, key_table, leader, name_of
from trm_jax.comparison.verdict import Verdict
from trm_jax.pages import kit

BADGES = {"pass": ("good", "✓"), "fail": ("bad", "✕"), "undecided": ("", "?")}


def build(groups: Sequence[Group], verdict: Verdict, charts: Sequence[Chart]) -> str:
    """The page."""
    names = {name_of(group): _swatch(index) for index, group in enumerate(groups)}
    parts = {
        "title": escape(verdict.headline), "headline": escape(verdict.headline), "why": escape(verdict.why),
        "legend": " ".join(f"<span>{_swatch(i)}<b>{escape(group.label)}</b> {group.mode}</span>"
                           for i, group in enumerate(groups)),
        "key_table": _table(key_table(groups), names),
        "charts": "".join(f'<figure class="card"><figcaption>{escape(chart.title)}</figcaption>'
                          f"{svg(chart, groups)}</figure>" for chart in charts),
        "criteria": _criteria(verdict), "others": _others(verdict), "next_step": _next_step(verdict.next_step),
        "caveats": "".join(f"<li>{escape(caveat)}</li>" for caveat in verdict.caveats) or "<li>Nothing special.</li>",
        "full_table": _table(full_table(groups), names),
    }
    return kit.build(__package__, parts)


def _swatch(index: int) -> str:
    return f'<i class="swatch" style="background: var(--g{index % len(COLOURS)})"></i>'


def _badge(outcome: str, text: str) -> str:
    style, mark = BADGES[outcome]
    return f'<span class="badge {style}">{mark} {escape(text)}</span>'


def _criteria(verdict: Verdict) -> str:
    """Mode against mode, then each mode's own; every row with evidence, threshold and reason."""
    rows = [_criterion(f, f'<span class="badge">{escape(leader(f))}</span>') for f in verdict.findings]
    for validation in verdict.validations:
        outcome = OUTCOMES[validation.standing]
        rows.append(f'<tr class="topic"><th colspan="3">What would validate {escape(validation.label)} '
                    f"({validation.mode}) {_badge(outcome, outcome)}</th></tr>")
        shown = {f.question for f in verdict.findings}
        rows += [_criterion(f, _badge(OUTCOMES[f.standing], OUTCOMES[f.standing]), short=f.question in shown
                            or "comparable" in f.question) for f in validation.findings]
    return f'<table class="criteria"><tbody>{"".join(rows)}</tbody></table>'


def _criterion(finding: Finding, badge: str, short: bool = False) -> str:
    evidence = "as above" if short and finding.evidence else finding.evidence or "–"
    reason = f"<small>{escape(finding.reason)}</small>" if finding.reason and not short else ""
    needs = f"<small>needs {escape(finding.needs)}</small>" if finding.needs else ""
    return (f"<tr><th>{escape(finding.question)}{needs}</th><td>{badge}</td>"
            f"<td>{escape(evidence)}{reason}</td></tr>")


def _others(verdict: Verdict) -> str:
    if not verdict.others:
        return ""
    rows: list[Row] = [["the other runs", "against", "", "evidence"]]
    words = {Standing.BETTER: "better", Standing.WORSE: "worse", Standing.EQUAL: "equal"}
    rows += [[f.subject, f.against, words.get(f.standing, "undecided"), f.evidence.split(";")[0] or f.reason]
             for f in verdict.others]
    return _table(rows, {})


def _next_step(step: plan.NextStep) -> str:
    lines = "\n".join(shlex.join(["./launch.sh", *plan.arguments(run)]) for run in step.runs)
    return f"<p>{escape(step.what)}</p>" + (f"<pre>{escape(lines)}</pre>" if lines else "")


def _table(rows: Sequence[Row], swatches: dict[str, str]) -> str:
    """Rows of text, the first of them the heading; a row of one cell is a heading across the table."""
    def cell(kind: str, text: str) -> str:
        return f"<{kind}>{swatches.get(text, '')}{escape(text)}</{kind}>"

    body = "".join(
        f"<tr>{cell('th', row[0])}{''.join(cell('td', text) for text in row[1:])}</tr>" if len(row) > 1 else
        f'<tr class="topic"><th colspan="{len(rows[0])}">{escape(row[0])}</th></tr>' for row in rows[1:])
    head = "".join(cell("th", text) for text in rows[0])
    return f'<div class="scroll card"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
