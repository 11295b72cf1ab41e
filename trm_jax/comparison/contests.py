"""Original dynamics against online learning, question by question: final accuracy, speed, held-out score.

A contest has a leader where the difference is larger than both its noise and the margin below which a difference does not
matter; it is equal where the difference and its noise together stay within the margin; everything else is undecided.
"""

from dataclasses import dataclass, replace

import numpy as np

from trm_jax.comparison.groups import Difference, Estimate, Group, difference, estimate
from trm_jax.comparison.metrics import AXES, BY_TAG, LEVELS
from trm_jax.comparison.wording import number, percent, with_spread

ACCURACY_MARGIN = 0.02  # accuracies that lie no further apart than this are comparable
ONE_SEED_FLOOR = 0.01  # accuracy: one seed against one seed is never known better than this
SPEED_MARGIN = np.log(1.10)  # a tenth fewer epochs is faster
SPEED_ONE_SEED_FLOOR = np.log(1.05)
MIN_PROGRESS = 0.9  # share of its configured epochs that a run must have done to have final values
LENGTH_TOLERANCE = 0.1  # runs whose lengths in epochs differ by more are compared at the shorter one's end
ASSUMED_EVAL_TASKS = 32  # the plan's, where a run does not say how many tasks it was evaluated on
HELD_OUT_TAGS = ("eval/pass@2", "eval/exact_accuracy", "eval/accuracy")

ORIGINAL, ONLINE, EQUAL, UNDECIDED = "original", "online", "equal", "undecided"


@dataclass(frozen=True)
class Pair:
    """The two groups that stand for the two training modes."""

    original: Group
    online: Group
    window_steps: float  # of the smoothed curves
    common_epochs: float | None = None  # where both were cut, if their lengths differ

    @property
    def groups(self) -> tuple[Group, Group]:
        return self.original, self.online

    @property
    def seeds(self) -> int:
        """The smaller number of seeds of the two."""
        return min(group.seeds for group in self.groups)


@dataclass(frozen=True)
class Contest:
    question: str
    leader: str  # original | online | equal | undecided
    evidence: str
    threshold: str
    reason: str = ""  # why it is undecided, or what to keep in mind
    difference: Difference | None = None  # original − online

    @property
    def is_decided(self) -> bool:
        return self.leader != UNDECIDED


def cut_to_common(pair: Pair) -> Pair:
    """Both groups at the same number of epochs, where their lengths differ and are known."""
    if not all(group.has_axis("epochs") for group in pair.groups):
        return pair
    ends = [run.end["epochs"] for group in pair.groups for run in group.runs]
    if max(ends) <= (1 + LENGTH_TOLERANCE) * min(ends):
        return pair
    original, online = (group.until(min(ends)) for group in pair.groups)
    return replace(pair, original=original, online=online, common_epochs=min(ends))


def obstacle(tag: str, *groups: Group) -> str:
    """Why `tag` has no final value to judge by in one of the groups; '' if it has."""
    for group in groups:
        unfinished = [run for run in group.runs if run.progress is not None and run.progress < MIN_PROGRESS]
        if any(run.diverged for run in group.runs):
            return f"{group.label} diverged: most of its last losses are not finite"
        if not group.has(tag):
            return f"{group.label} did not log {tag}"
        if unfinished:
            return f"{unfinished[0].label} is at {percent(unfinished[0].progress)} of its configured training"
        if not BY_TAG[tag].is_evaluation and not group.is_long_enough(tag):
            return f"{group.label} is too short: too few points of {tag} in its last tenth"
    return ""


def final_accuracy(pair: Pair) -> Contest:
    """Which mode has the higher train accuracy at the end."""
    tag = "train/accuracy"
    question = "Higher final train accuracy"
    threshold = f"more than {ACCURACY_MARGIN} apart, and more than the noise"
    values = [group.final(tag) for group in pair.groups]
    evidence = _side_by_side(pair, values)
    problem = obstacle(tag, *pair.groups)
    if problem:
        return Contest(question, UNDECIDED, evidence, threshold, problem)
    gap = difference(*values, floor=ONE_SEED_FLOOR)
    return _judged(question, gap, evidence, threshold)


def held_out(pair: Pair) -> Contest:
    """Which mode scores better on tasks it was not trained on, at the last evaluation.

    Tasks are few: the noise of a share of solved tasks is at least that of a binomial.
    """
    question = "Better held-out score"
    threshold = f"more than {ACCURACY_MARGIN} apart, and more than the noise of the seeds and of the tasks"
    tag = _held_out_tag(pair)
    if tag is None:
        missing = [group.label for group in pair.groups if not any(group.has(tag) for tag in HELD_OUT_TAGS)]
        reason = (
            f"no evaluation in {' and '.join(missing)}"
            if missing
            else "no evaluation metric that both logged"
        )
        return Contest(question, UNDECIDED, "", threshold, reason)
    values = [group.final(tag) for group in pair.groups]
    evidence = f"{BY_TAG[tag].title}: {_side_by_side(pair, values)}"
    problem = obstacle(tag, *pair.groups)
    if problem:
        return Contest(question, UNDECIDED, evidence, threshold, problem)
    gap = difference(*values, floor=ONE_SEED_FLOOR)
    if tag != "eval/accuracy":
        tasks = [group.setting("data.max_eval_groups") for group in pair.groups]
        known = all(tasks)
        count = min(tasks) if known else ASSUMED_EVAL_TASKS
        gap = replace(gap, noise=float(np.hypot(gap.noise, _binomial_noise(values, count))))
        evidence += f"; {count} tasks{'' if known else ' assumed'}"
    return _judged(question, gap, evidence, threshold)


def speed(pair: Pair) -> Contest:
    """Which mode needs fewer epochs to the same train accuracy; the highest level that tells them apart decides."""
    question = "Fewer epochs to the same train accuracy"
    threshold = "at least a tenth fewer, and more than the noise"
    axis = next((axis for axis in ("epochs", "samples") if all(g.has_axis(axis) for g in pair.groups)), None)
    if not all(group.has("train/accuracy") for group in pair.groups):
        return Contest(question, UNDECIDED, "", threshold, obstacle("train/accuracy", *pair.groups))
    diverged = [group.label for group in pair.groups if any(run.diverged for run in group.runs)]
    if diverged:
        return Contest(question, UNDECIDED, "", threshold, f"{' and '.join(diverged)} diverged")
    if axis is None:
        reasons = {
            run.missing_axes["epochs"] for g in pair.groups for run in g.runs if "epochs" in run.missing_axes
        }
        return Contest(
            question, UNDECIDED, "", threshold, f"epochs are not known: {'; '.join(sorted(reasons))}"
        )

    gaps = {level: gap for level in LEVELS if (gap := _speed_gap(pair, level, axis)) is not None}
    if not gaps:
        return Contest(
            question, UNDECIDED, "", threshold, "there is no level that both left behind in their curves"
        )
    decisive = max(gaps)
    evidence = f"to {percent(decisive)} accuracy: {_reached(pair, decisive, axis)}"
    leaders = {level: leader(gap, SPEED_MARGIN) for level, gap in gaps.items()}
    # A shorter time leads, so the sign is the other way round than that of an accuracy.
    leaders = {level: {ORIGINAL: ONLINE, ONLINE: ORIGINAL}.get(who, who) for level, who in leaders.items()}
    if {ORIGINAL, ONLINE} <= set(leaders.values()):
        reason = "; ".join(f"{percent(level)}: {who} first" for level, who in leaders.items())
        return Contest(
            question, UNDECIDED, evidence, threshold, f"the levels disagree ({reason})", gaps[decisive]
        )
    who = leaders[decisive]
    reason = "the difference is smaller than the noise" if who == UNDECIDED else ""
    return Contest(question, who, evidence, threshold, reason, gaps[decisive])


def leader(gap: Difference, margin: float) -> str:
    """Who has the larger value, by how much and how surely."""
    if abs(gap.value) > margin and gap.is_clear:
        return ORIGINAL if gap.value > 0 else ONLINE
    return EQUAL if abs(gap.value) + gap.noise <= margin else UNDECIDED


def _judged(question: str, gap: Difference, evidence: str, threshold: str) -> Contest:
    who = leader(gap, ACCURACY_MARGIN)
    evidence = f"{evidence}; difference {gap.value:+.3f}, noise ± {gap.noise:.3f}"
    reason = "the noise is too large to tell a difference from none" if who == UNDECIDED else ""
    return Contest(question, who, evidence, threshold, reason, gap)


def _side_by_side(pair: Pair, values: list[Estimate | None]) -> str:
    known = [(g.label, v) for g, v in zip(pair.groups, values, strict=True) if v is not None]
    return ", ".join(f"{label} {with_spread(value.mean, value.spread)}" for label, value in known)


def _held_out_tag(pair: Pair) -> str | None:
    """The first tag that both logged and in which one of them is above zero; else the first that both logged."""
    both = [tag for tag in HELD_OUT_TAGS if all(group.has(tag) for group in pair.groups)]
    telling = [tag for tag in both if any(group.final(tag).mean > 0 for group in pair.groups)]
    return next(iter(telling + both), None)


def _binomial_noise(values: list[Estimate], tasks: int) -> float:
    """Twice the standard error of a difference of two shares of `tasks` (Agresti and Coull's estimate, never 0)."""
    shares = [(value.mean * tasks + 2) / (tasks + 4) for value in values]
    return float(2 * np.sqrt(sum(share * (1 - share) / (tasks + 4) for share in shares)))


def _speed_gap(pair: Pair, level: float, axis: str) -> Difference | None:
    """log(time of the original mode / time of the online mode) to `level`; None where the level says nothing."""
    times = [group.reach(level, axis, pair.window_steps) for group in pair.groups]
    reached = [all(time is not None for time in side) for side in times]
    if all(reached):
        if all(_is_above_from_start(group, level, pair.window_steps) for group in pair.groups):
            return None
        sides = [
            estimate(np.log(np.maximum(side, 1e-9)), _log_time_spread(group, level, axis, pair.window_steps))
            for group, side in zip(pair.groups, times, strict=True)
        ]
        return difference(*sides, floor=SPEED_ONE_SEED_FLOOR)
    for winner, loser, sign in ((0, 1, -1), (1, 0, 1)):
        if reached[winner] and all(time is None for time in times[loser]):
            # The other mode is slower by at least the rest of its run; a run that ended too early says nothing.
            end = min(run.end[axis] for run in pair.groups[loser].runs)
            if end > max(times[winner]):
                return Difference(sign * float(np.log(end / max(times[winner]))), 0.0)
    return None


def _is_above_from_start(group: Group, level: float, window_steps: float) -> bool:
    return all(run.series["train/accuracy"].smoothed(window_steps).values[0] >= level for run in group.runs)


def _log_time_spread(group: Group, level: float, axis: str, window_steps: float) -> float:
    """How uncertain one seed's time is: a quarter of the log of the span in which its curve crosses level ± floor."""
    run = group.runs[0]
    curve = run.series["train/accuracy"].smoothed(window_steps)
    step = curve.first_reaches(level)
    early = curve.first_reaches(level - ONE_SEED_FLOOR)
    late = curve.first_reaches(level + ONE_SEED_FLOOR) or run.last_step
    resolution = curve.spacing_steps / 2
    x, low, high = run.axes[axis](
        np.array([step, min(early, step - resolution), max(late, step + resolution)])
    )
    return float(np.log(high / max(low, x / 2)) / 4)


def _reached(pair: Pair, level: float, axis: str) -> str:
    """The times of both modes on every axis they share, the one that decides first."""
    words = []
    for name in (axis, *(name for name in AXES if name != axis)):
        if not all(group.has_axis(name) for group in pair.groups):
            continue
        sides = []
        for group in pair.groups:
            times = group.reach(level, name, pair.window_steps)
            never = any(time is None for time in times)
            sides.append(f"{group.label} {'never' if never else number(float(np.mean(times)))}")
        words.append(f"{' / '.join(sides)} {AXES[name]}")
    return "; ".join(words)
