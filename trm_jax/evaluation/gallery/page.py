"""One HTML page with every task of an evaluation, which needs nothing but itself."""

from html import escape
from typing import Any

import numpy as np

from trm_jax import pages
from trm_jax.data.arc.draw import PALETTE
from trm_jax.data.arc.grids import Grid
from trm_jax.data.arc.tasks import Task
from trm_jax.data.arc.voting import ATTEMPTS, Votes
from trm_jax.evaluation.results import facts, pass_rows, remarks

# Status of a task → what it is called; also the order of the filters, and of the tasks at first.
STATUSES = {"solved": "Solved", "unsolved": "Unsolved", "unknown": "No known answer", "left_out": "Not evaluated"}


def build(metrics: dict[str, Any], tasks: tuple[Task, ...], votes: Votes, slots: int) -> str:
    """The page.

    Args:
        metrics: as `results.metrics_of` gives them.
        tasks: the whole evaluation set; those without votes are shown as not evaluated.
        slots: demonstrations that the model is shown at most (encoder.max_demos); the page shows no more.
    """
    entries = sorted((_entry(task, votes, slots) for task in tasks),
                     key=lambda entry: list(STATUSES).index(entry["status"]))
    counts = {status: sum(entry["status"] == status for entry in entries) for status in STATUSES}
    parts = {
        "title": escape(f"{metrics['run']}, step {metrics['step']}: {metrics['tasks']['solved']} of "
                        f"{metrics['tasks']['evaluated']} tasks solved, {metrics['protocol']}"),
        "run": escape(f"{metrics['run']}, step {metrics['step']}"),
        "what": escape(f"{metrics['protocol']}, {metrics['data']}, {metrics['augmentations']} variants of each task"),
        "headline": _headline(metrics),
        "passes": _passes(metrics),
        "facts": _facts(metrics),
        "remarks": "".join(f"<li>{escape(remark)}</li>" for remark in remarks(metrics)),
        "filters": _filters(counts),
    }
    return pages.build(__package__, parts,
                     {"palette": ["#" + bytes(colour).hex() for colour in PALETTE], "tasks": entries})


def _headline(metrics: dict[str, Any]) -> str:
    counts = metrics["tasks"]
    return (f'<b>{counts["solved"]}</b> solved <i>/</i> <b>{counts["evaluated"]}</b> evaluated <i>/</i> '
            f'<b>{counts["total"]}</b> tasks, {metrics["protocol"]}')


def _passes(metrics: dict[str, Any]) -> str:
    """One bar per pass@K, with its interval."""
    rows = []
    for name, found in pass_rows(metrics):
        left, width = 100 * found["low"], 100 * (found["high"] - found["low"])
        rows.append(f'<tr><th>{name}</th><td class="bar">'
                    f'<span class="interval" style="left:{left:.2f}%;width:{width:.2f}%"></span>'
                    f'<span class="mark" style="left:{100 * found["share"]:.2f}%"></span></td>'
                    f'<td class="number">{found["share"]:.1%}</td>'
                    f'<td>{found["low"]:.1%} … {found["high"]:.1%}</td><td>{found["solved"]}</td></tr>')
    return "".join(rows)


def _facts(metrics: dict[str, Any]) -> str:
    shown = {**facts(metrics), "predictions": f"{metrics['predictions']:,}"}
    return "".join(f"<div><dt>{escape(title)}</dt><dd>{value}</dd></div>" for title, value in shown.items())


def _filters(counts: dict[str, int]) -> str:
    choices = [("all", "All", sum(counts.values()))]
    choices += [(status, name, counts[status]) for status, name in STATUSES.items() if counts[status]]
    return "".join(
        f'<span><input type="radio" name="status" id="show-{status}" value="{status}"'
        f'{" checked" if status == "all" else ""}><label for="show-{status}">{name} <b>{count}</b></label></span>'
        for status, name, count in choices)


def _entry(task: Task, votes: Votes, slots: int) -> dict[str, Any]:
    """A task as page.js reads it; a grid is its rows of digits, joined by "/"."""
    queries = [_query(task, query, votes) for query in range(len(task.queries))]
    known = [query["solved"] for query in queries if "answer" in query]
    if not any(query["predictions"] for query in queries):
        status = "left_out"
    else:
        status = "unknown" if not known else "solved" if all(known) else "unsolved"
    demos = [[_text(grid) for grid in (demo.input, demo.output) if grid is not None] for demo in task.demos[:slots]]
    shown = f"demonstrations 1–{slots} of {len(task.demos)}" if len(task.demos) > slots else ""
    return {"id": task.id, "status": status, "label": _label(status, known), "demos": demos, "shown": shown,
            "queries": queries}


def _label(status: str, known: list[bool]) -> str:
    partly = status == "unsolved" and any(known)
    return f"{sum(known)} of {len(known)} solved" if partly else STATUSES[status]


def _query(task: Task, query: int, votes: Votes) -> dict[str, Any]:
    ranking, answer = votes.ranking(task.id, query), task.queries[query].output
    best = ranking[:ATTEMPTS]
    found = {"input": _text(task.queries[query].input), "predictions": votes.predictions(task.id, query),
             "candidates": len(ranking),
             "attempts": [{"grid": _text(candidate.grid), "votes": candidate.votes,
                           "confidence": round(candidate.confidence, 4)} for candidate in best]}
    if answer is None:
        return found
    return found | {"answer": _text(answer), "rank": votes.rank_of(task.id, query, answer),
                    "solved": any(np.array_equal(candidate.grid, answer) for candidate in best)}


def _text(grid: Grid) -> str:
    return "/".join("".join(map(str, row)) for row in grid.tolist())
