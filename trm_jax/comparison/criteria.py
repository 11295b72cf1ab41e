"""The criteria that set mode against mode, a function each, and what they have in common."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from trm_jax.comparison.groups import Group, equally_long
from trm_jax.comparison.statistics import Difference, Seeds, Standing, difference
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.wording import listed, number, percent, with_spread
from trm_jax.metric_table import ANSWERED, BY_TAG, EXACT, TOKENS

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
        sound = [group for group in self.groups if group.sound]
        tags = [tag for tag in (ANSWERED, EXACT) if sound and all(group.has(tag) for group in sound)]
        self.tag = tags[0] if tags else ""  # the exact accuracy that both have; "" for none
        self.problem = self._obstacle(sound)  # why final values do not decide; "" if they do
        axes = self.shared("epochs", "updates")
        if not axes:
            self.problem = self.problem or f"{a.label} and {b.label} share no axis"
        elif len(sound) == 2:
            axis = next((axis for axis in axes if equally_long(axis, a, b)), axes[0])
            end = min(a.ends(axis) + b.ends(axis))
            self.at = f" at {number(end)} {axis}"  # where final values are taken, in words
            longer = [group for group in sound if max(group.ends(axis)) > (1 + THRESHOLDS.length_tolerance) * end]
            if longer:
                self.cut = axis, end
                annealed = [group.label for group in longer if (group.setting("optim.lr_min_ratio") or 1) < 1]
                cut = f"{listed(annealed)} would be cut{self.at}, before its learning rate has come down"
                self.problem = self.problem or (cut if annealed else "")
                self.at += f", where {listed([group.label for group in longer])} went on"

    def shared(self, *axes: str) -> list[str]:
        """Those of the axes that both have."""
        return [axis for axis in axes if all(group.has_axis(axis) for group in self.groups)]

    def finals(self, tag: str) -> list[Seeds]:
        """Final values of both; a seed that diverged has solved nothing."""
        return [group.final(tag, 0.0, self.cut) for group in self.groups]

    def finding(self, question: str, needs: str, values: Sequence[Seeds] = (), numbers: Mapping[str, Any] | None = None,
                **fields: Any) -> Finding:
        """A finding about both, with the values of either side among its numbers."""
        return Finding(question, *self.labels, needs=needs, numbers={
            **(numbers or {}), **dict(zip(self.labels, values, strict=False))}, **fields)

    def sides(self, values: Sequence[Seeds]) -> str:
        return ", ".join(f"{label} {with_spread(side.values())}"
                         for label, side in zip(self.labels, values, strict=True))

    def _obstacle(self, sound: Sequence[Group]) -> str:
        if not sound:
            return "both diverged"
        if unfinished := [f"{run.label} {run.shortfall}" for group in self.groups for run in group.unfinished]:
            return listed(unfinished[:3])
        if not self.tag:
            lacking = [group.label for group in sound if not exact_tag(group)]
            return f"no exact accuracy was logged of {listed(lacking) or 'both alike'}"
        return next(filter(None, (too_short(group, self.tag) for group in sound)), "")


def exact_tag(group: Group) -> str:
    return next((tag for tag in (ANSWERED, EXACT) if group.has(tag)), "")


def too_short(group: Group, tag: str) -> str:
    """That a group has too few points of `tag` for a final value, in words; "" if it has enough."""
    short = any(len(run.series[tag].last_part()) < THRESHOLDS.min_final_points for run in group.sound if run.has(tag))
    return f"{group.label} is too short: too few points of {tag} in its last tenth" if short else ""


def final_accuracy(pair: Pair) -> Finding:
    """Exact accuracy of the rows that answer, at the end; a seed that diverged answers nothing right.

    Token accuracy saturates, and rows in flight are of other ages in each mode: neither decides.
    """
    finding = partial(pair.finding, "final exact accuracy",
                      f"more than {THRESHOLDS.accuracy_margin} apart, and than the noise")
    if not pair.tag:
        return finding(reason=pair.problem)
    a, b = values = pair.finals(pair.tag)
    apart = difference(a, b, THRESHOLDS.seed_sd)
    evidence = f"{BY_TAG[pair.tag].title} {pair.sides(values)}{pair.at}, difference {apart}"
    if all(group.has(TOKENS) for group in pair.groups):
        evidence += f"; token accuracy {pair.sides(pair.finals(TOKENS))}"
    found = finding(values, {"tag": pair.tag}, evidence=evidence)
    return found.settled(apart, THRESHOLDS.accuracy_margin, pair.problem)


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
    finding = partial(pair.finding, f"{SPEED_AXIS} to the same exact accuracy",
                      f"at least {percent(THRESHOLDS.speed_margin)} fewer, and by more than the noise")
    axes = pair.shared(SPEED_AXIS, "updates", "hours")
    if not pair.tag or SPEED_AXIS not in axes:
        return finding(reason=f"the {SPEED_AXIS} of both are not known" if pair.tag else pair.problem)
    top = min(value for group in pair.groups for value in group.final(pair.tag, 0.0).values())
    starts = [run.series[pair.tag].values[0] for group in pair.groups for run in group.runs if run.has(pair.tag)]
    crossed = [level for level in THRESHOLDS.levels if max(starts) < level <= top - THRESHOLDS.accuracy_margin]
    if not crossed:
        return _alone(pair, finding)
    apart, ratios, words = {}, {}, []
    for axis in axes:
        a, b = ({seed: float(np.log(max(time, 1e-9))) for seed, time in side.items()}
                for side in (group.reach(pair.tag, crossed[-1], axis) for group in pair.groups))
        apart[axis] = found = difference(b, a, THRESHOLDS.seed_log_time_sd)
        low, ratios[axis], high = (float(np.exp(found.noise * sign - found.value)) for sign in (-1, 0, 1))
        words.append(f"{number(ratios[axis])} × the {axis} ({number(low)} … {number(high)})")
    times = [group.reach(pair.tag, crossed[-1], SPEED_AXIS) for group in pair.groups]
    evidence = f"to {percent(crossed[-1])} {pair.sides(times)}: {'; '.join(words)}"
    return finding(times, {"level": crossed[-1]}, evidence=evidence, ratios=ratios).settled(
        apart[SPEED_AXIS], SPEED_MARGIN)


def _alone(pair: Pair, finding: Callable[..., Finding]) -> Finding:
    """No level that both clearly reach: one that only the side with the higher final accuracy reaches counts."""
    standing = final_accuracy(pair).standing
    if standing in (Standing.BETTER, Standing.WORSE):
        ahead, behind = pair.groups if standing == Standing.BETTER else pair.groups[::-1]
        best = max(behind.final(pair.tag, 0.0).values()) + THRESHOLDS.accuracy_margin
        for level in reversed(THRESHOLDS.levels):
            times = ahead.reach(pair.tag, level, SPEED_AXIS)
            if best < level <= min(ahead.final(pair.tag, 0.0).values()) and np.isfinite(list(times.values())).all():
                evidence = f"to {percent(level)}: {ahead.label} {with_spread(times.values())}, {behind.label} never"
                return finding(numbers={"level": level}, standing=standing, evidence=evidence)
    levels = listed([percent(level) for level in THRESHOLDS.levels])
    return finding(reason=f"none of the levels {levels} is clearly reached by every seed of both")
