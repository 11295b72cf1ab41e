"""Full evaluations of a run, as `python -m trm_jax.evaluate` leaves them in RUN/evaluation/*/metrics.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HELD_OUT = "held out"  # no pair of an evaluated task was trained on; other words are transductive and adapted


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of one checkpoint.

    Attributes:
        kind: what two evaluations must share to be compared, in words.
        step: of the checkpoint, in batches.
        protocol: the word that its score carries: "held out", "transductive" or "adapted"; "" where it has none.
        score: pass@2.
        tasks: that the score is the mean over.
        by_task: task → share of its queries answered within two attempts; empty where that is not recorded.
    """

    path: Path
    kind: str
    step: float
    protocol: str
    score: float
    tasks: int
    by_task: Mapping[str, float]


def read_evaluations(run: Path, notes: list[str]) -> tuple[Evaluation, ...]:
    """All full evaluations of the run in a folder; what is no evaluation goes to `notes`."""
    found = []
    for path in sorted(run.glob("evaluation/*/metrics.json")):
        try:
            metrics: Any = json.loads(path.read_text(encoding="utf-8"))
            counts = metrics["tasks"]
            kind = ", ".join(str(metrics[key]) for key in ("data", "augmentations", "halt") if key in metrics)
            found.append(Evaluation(
                path, f"{kind}, {counts['evaluated']} tasks", float(metrics.get("step", 0)),
                str(metrics.get("protocol") or ""), float(metrics["pass@2"]["share"]), int(counts["evaluated"]),
                {str(task): float(share) for task, share in (metrics.get("by_task") or {}).items()}))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            notes.append(f"{path.relative_to(run)} is no evaluation that can be read ({type(error).__name__}: {error})")
    return tuple(found)
