"""The criteria that set mode against mode, a function each, and what they have in common."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trm_jax.comparison.groups import Group, equally_long
from trm_jax.comparison.statistics import Difference, Seeds, Standing, difference, paired_task_error, task_error
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.wording import listed, number, percent, with_spread
from trm_jax.metric_table import ANSWERED, BY_TAG, EXACT, PASS_2, TOKENS

SPEED_AXIS = "epochs"  # what the plan counts; the other axes stand beside it
SPEED_MARGIN = -float(np.log(1 - THRESHOLDS.speed_margin))  # of a logarithm of times


@dataclass(frozen=True)
class Finding:
    """How `subject` stands to `against` in one question, on what evidence."""

    question: str
    subject: str
    against: str
    standing: Standing = Standing.UNDECIDED
    needs: str = ""  # the threshold, in words
    evidence: str = ""  # in words; `numbers` has the same and more as plain values
    reason: str = ""  # why it is undecided, or what to keep in mind
    difference: Difference | None = None
    numbers: dict[str, Any] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)  # axis → time to the same accuracy over that of `against`
    parts: tuple["Finding", ...] = ()  # what it is made of, where it is about several questions

    def settled(self, apart: Difference, margin: float, problem: str = "") -> "Finding":
        """The finding that a difference makes, unless there is a problem; why where it is undecided."""
        problem = problem or ("one of them has no value there" if np.isnan(apart.value) else "")
        standing = Standing.UNDECIDED if problem else apart.standing(margin)
        close = "may lie on either side of the margin" if abs(apart.value) > apart.noise else "is within the noise"
        reason = problem or (f"the difference {close}" if standing == Standing.UNDECIDED else "")
        return replace(self, standing=standing, difference=apart, reason=reason)


class Pair:
    """Two groups at a point of their training that they have in common.

    Runs that are equally long, in epochs or else in updates, are compared at their ends. Others are cut where the
    shortest ends; one whose learning rate comes down towards its end is not itself when it is cut.
    """

    def __init__(self, a: Group, b: Group):
        self.groups, self.labels, self.at, self.cut = (a, b), (a.label, b.label), "", None
        self.sound = [group for group in self.groups if group.sound]
        tags = (tag for tag in (ANSWERED, EXACT) if self.sound and all(group.has(tag) for group in self.sound))
        self.tag = next(tags, "")  # the exact accuracy that both have; "" for none
        self.problem = self._obstacle()  # why final values do not decide; "" if they do
        axes = self.shared("epochs", "updates")
        if not axes:
            self.problem = self.problem or f"{a.label} and {b.label} share no axis"
        elif len(self.sound) == 2:
            axis = next((axis for axis in axes if equally_long(axis, a, b)), axes[0])
            end = min(a.ends(axis) + b.ends(axis))
            self.at = f" at {number(end)} {axis}"  # where final values are taken, in words
            longer = [group for group in self.sound if max(group.ends(axis)) > (1 + THRESHOLDS.length_tolerance) * end]
            if longer:
                self.cut = axis, end
                annealed = [group.label for group in longer if (group.setting("optim.lr_min_ratio", float) or 1) < 1]
                cut = f"{listed(annealed)} would be cut{self.at}, before its learning rate has come down"
                self.problem = self.problem or (cut if annealed else "")
                self.at += f", where {listed([group.label for group in longer])} went on"

    def _obstacle(self) -> str:
        if not self.sound:
            return "both diverged"
        if not self.tag:
            lacking = [group.label for group in self.sound if not group.exact]
            return f"no exact accuracy was logged of {listed(lacking) or 'both alike'}"
        return listed([*filter(None, (group.unready(self.tag) for group in self.sound))])

    def shared(self, *axes: str) -> list[str]:
        """Those of the axes that both have."""
        return [axis for axis in axes if all(group.has_axis(axis) for group in self.groups)]

    def finals(self, tag: str) -> list[Seeds]:
        """Final values of both; a seed that diverged has solved nothing."""
        return [group.final(tag, 0.0, self.cut) for group in self.groups]

    def sides(self, values: Sequence[Seeds]) -> str:
        return ", ".join(f"{label} {with_spread(side.values())}"
                         for label, side in zip(self.labels, values, strict=True))

    def compared(self, finding: Finding, what: str, values: Sequence[Seeds], problem: str, error: float = 0.0,
                 **numbers: Any) -> Finding:
        """The finding that two sets of shares make, with them among its numbers; `what` they are, in words, and
        `error`, a standard error of their difference that has nothing to do with seeds."""
        a, b = values
        apart = difference(a, b, THRESHOLDS.seed_sd, error)
        found = replace(finding, evidence=f"{what}: {self.sides(values)}, difference {apart}",
                        numbers={**numbers, **dict(zip(self.labels, values, strict=True))})
        return found.settled(apart, THRESHOLDS.accuracy_margin, problem)


def final_accuracy(pair: Pair) -> Finding:
    """Exact accuracy of the rows that answer, at the end; a seed that diverged answers nothing right.

    Token accuracy saturates, and rows in flight are of other ages in each mode: neither decides.
    """
    needs = f"more than {THRESHOLDS.accuracy_margin} apart, and than the noise"
    finding = Finding("final exact accuracy", *pair.labels, needs=needs)
    if not pair.tag:
        return replace(finding, reason=pair.problem)
    found = pair.compared(finding, BY_TAG[pair.tag].title + pair.at, pair.finals(pair.tag), pair.problem, tag=pair.tag)
    tokens = all(group.has(TOKENS) for group in pair.groups)
    beside = f"; token accuracy {pair.sides(pair.finals(TOKENS))}" if tokens else ""
    return replace(found, evidence=found.evidence + beside)


def comparable(pair: Pair) -> Finding:
    """Whether the first group's final accuracy is at least the other's, give or take the margin."""
    margin, found = THRESHOLDS.accuracy_margin, final_accuracy(pair)
    reaches = found.difference and found.difference.value - found.difference.equal_noise >= -margin
    return replace(found, question="final accuracy comparable or better", needs=f"no more than {margin} below",
                   standing=Standing.BETTER if reaches and not pair.problem else found.standing)


def speed(pair: Pair) -> Finding:
    """Epochs to the highest level of exact accuracy that all seeds of both clearly reach.

    That one side never reaches a level counts only where the final values differ: else it says where the level lies.
    """
    needs = f"at least {percent(THRESHOLDS.speed_margin)} fewer, and by more than the noise"
    finding = Finding(f"{SPEED_AXIS} to the same exact accuracy", *pair.labels, needs=needs)
    axes = pair.shared(SPEED_AXIS, "updates", "hours")
    if not pair.tag or SPEED_AXIS not in axes:
        return replace(finding, reason=f"the {SPEED_AXIS} of both are not known" if pair.tag else pair.problem)
    top = min(value for group in pair.groups for value in group.final(pair.tag, 0.0).values())
    starts = [run.series[pair.tag].values[0] for group in pair.groups for run in group.runs if run.has(pair.tag)]
    crossed = [level for level in THRESHOLDS.levels if max(starts) < level <= top - THRESHOLDS.accuracy_margin]
    if not crossed:
        return _alone(pair, finding)
    level, apart, words = crossed[-1], {}, []
    times = {axis: [group.reach(pair.tag, level, axis) for group in pair.groups] for axis in axes}
    for axis, sides in times.items():
        a, b = ({seed: float(np.log(max(time, 1e-9))) for seed, time in side.items()} for side in sides)
        apart[axis] = found = difference(b, a, THRESHOLDS.seed_log_time_sd)
        low, ratio, high = (number(float(np.exp(found.noise * sign - found.value))) for sign in (-1, 0, 1))
        words.append(f"{ratio} × the {axis} ({low} … {high})")
    return replace(
        finding, evidence=f"to {percent(level)} {pair.sides(times[SPEED_AXIS])}: {'; '.join(words)}",
        numbers={"level": level, **dict(zip(pair.labels, times[SPEED_AXIS], strict=True))},
        ratios={axis: float(np.exp(-found.value)) for axis, found in apart.items()},
    ).settled(apart[SPEED_AXIS], SPEED_MARGIN)


def _alone(pair: Pair, finding: Finding) -> Finding:
    """No level that both clearly reach: one that only the side with the higher final accuracy reaches counts."""
    standing = final_accuracy(pair).standing
    ahead, behind = pair.groups if standing == Standing.BETTER else pair.groups[::-1]
    best = max(behind.final(pair.tag, 0.0).values()) + THRESHOLDS.accuracy_margin
    for level in reversed(THRESHOLDS.levels) if standing in (Standing.BETTER, Standing.WORSE) else ():
        times = ahead.reach(pair.tag, level, SPEED_AXIS)
        if best < level <= min(ahead.final(pair.tag, 0.0).values()) and np.isfinite(list(times.values())).all():
            evidence = f"to {percent(level)}: {ahead.label} {with_spread(times.values())}, {behind.label} never"
            return replace(finding, numbers={"level": level}, standing=standing, evidence=evidence)
    levels = listed([percent(level) for level in THRESHOLDS.levels])
    return replace(finding, reason=f"none of the levels {levels} is clearly reached by every seed of both")


def held_out(pair: Pair) -> Finding:
    """Share of tasks solved in two attempts; its noise is that of the seeds and that of the tasks.

    Full evaluations of the same tasks are compared task by task (McNemar); others, and those of training where there
    are no full ones of both, as shares of their true numbers. Scores of different words are never compared.
    """
    needs = f"more than {THRESHOLDS.accuracy_margin} apart, and than the noise of seeds and tasks"
    finding = Finding("held-out score", *pair.labels, needs=needs)
    ours, theirs = (group.scores(pair.cut) for group in pair.groups)
    alike = [kind for kind in ours if kind in theirs]
    if not alike:
        return replace(finding, reason="no share of solved tasks is known of both alike")
    kind = max(alike, key=lambda kind: (kind != PASS_2, ours[kind].protocol == theirs[kind].protocol,
                                        ours[kind].tasks))
    a, b, is_full = ours[kind], theirs[kind], kind != PASS_2
    if a.protocol != b.protocol or a.protocol in ("trained on", "not told"):
        words = f"the score of {pair.labels[0]} is {a.protocol}, that of {pair.labels[1]} {b.protocol}"
        return replace(finding, numbers={"protocols": [a.protocol, b.protocol]}, reason=f"{words}: never compared")
    tasks, means = [a.tasks, b.tasks], [float(np.mean(list(side.by_seed.values()))) for side in (a, b)]
    paired = len(a.by_task.keys() & b.by_task.keys()) == max(tasks)
    error = paired_task_error(a.by_task, b.by_task) if paired else task_error(means, tasks)
    counts = " and ".join(dict.fromkeys(f"{count:,} tasks" for count in tasks))
    what = (f"pass@2 of {a.protocol} evaluations ({kind}; {'task by task' if paired else 'as shares'})" if is_full
            else f"pass@2, {a.protocol}, while training ({counts})")
    return pair.compared(
        finding, what, [a.by_seed, b.by_seed], pair.problem or "neither solves a held-out task" * (not any(means)),
        error, tasks=tasks, protocol=a.protocol, paired_by_task=paired, source="full" if is_full else kind)
