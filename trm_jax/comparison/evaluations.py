"""Full evaluations of a run, as `python -m trm_jax.evaluate` leaves them in RUN/evaluation/*/metrics.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of one checkpoint.

    Attributes:
        kind: what two evaluations must share to be compared, in words.
        step: of the checkpoint, in batches.
        protocol: the word that its score carries: "held out", "transductive" or "adapted"; "" where it has none.
        score: pass@2, the mean over `tasks` tasks.
        by_task: task → share of its queries answered within two attempts; empty where that is not recorded.
    """

    path: str
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
            metrics = json.loads(path.read_text(encoding="utf-8"))
            tasks, by_task = int(metrics["tasks"]["evaluated"]), metrics.get("by_task") or {}
            kind = ", ".join([*(str(metrics[key]) for key in ("data", "augmentations", "halt") if key in metrics),
                              f"{tasks} tasks"])
            found.append(Evaluation(str(path), kind, float(metrics.get("step", 0)), metrics.get("protocol") or "",
                                    float(metrics["pass@2"]["share"]), tasks,
                                    {task: float(share) for task, share in by_task.items()}))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            notes.append(f"{path.relative_to(run)} is no evaluation that can be read ({type(error).__name__}: {error})")
    return tuple(found)
