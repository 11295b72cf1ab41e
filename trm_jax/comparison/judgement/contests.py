"""Original dynamics against online learning, question by question; here final accuracy and held-out score.

A contest has a leader where the difference is larger than both its noise and the margin below which a
difference does not matter; it is equal where the difference and its noise together stay within the margin;
everything else is undecided.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from trm_jax.comparison.judgement.alignment import Alignment, align
from trm_jax.comparison.record.groups import Difference, Group, Standing, difference
from trm_jax.comparison.record.metrics import BY_TAG
from trm_jax.comparison.wording import listed, with_spread

ACCURACY_MARGIN = 0.02  # accuracies that lie no further apart than this are comparable
ONE_SEED_FLOOR = 0.05  # accuracy: where a side has one seed, a difference is never known better than this
ASSUMED_EVAL_TASKS = 32  # the plan's, where a run does not say how many tasks it was evaluated on
HELD_OUT_TAGS = ("eval/pass@2", "eval/exact_accuracy")  # shares of solved tasks; the first that tells decides
HELD_OUT_TOKENS = "eval/accuracy"  # tokens right of tasks that are not solved decide nothing

ORIGINAL, ONLINE, EQUAL, UNDECIDED = "original", "online", "equal", "undecided"
LEADERS = {  # of the standing of the original mode to the online one, where more is better
    Standing.ABOVE: ORIGINAL,
    Standing.BELOW: ONLINE,
    Standing.EQUAL: EQUAL,
    Standing.UNDECIDED: UNDECIDED,
}


@dataclass(frozen=True)
class Pair:
    """The two groups that stand for the two training modes."""

    original: Group
    online: Group
    window_steps: float  # of the smoothed curves
    alignment: Alignment = field(default_factory=Alignment)

    @property
    def groups(self) -> tuple[Group, Group]:
        return self.original, self.online

    def aligned(self) -> "Pair":
        """The pair as its final values are to be compared."""
        (original, online), alignment = align(*self.groups)
        return replace(self, original=original, online=online, alignment=alignment)


@dataclass(frozen=True)
class Contest:
    """One question put to both modes."""

    question: str
    threshold: str
    leader: str = UNDECIDED  # original | online | equal | undecided
    evidence: str = ""
    reason: str = ""  # why it is undecided
    difference: Difference | None = None  # original − online


def obstacle(tag: str, *groups: Group) -> str:
    """Why `tag` has no final value to judge by in one of the groups; '' if it has."""
    for group in groups:
        failed = [run.failure for run in group.runs if run.failure]
        unfinished = [run for run in group.runs if run.is_unfinished]
        if failed:
            return f"{group.label} diverged: {failed[0]}"
        if group.diverged:
            return f"{group.label} diverged: most of its last losses are not finite"
        if not group.has(tag):
            return f"{group.label} did not log {tag}"
        if unfinished:
            return f"{unfinished[0].label} {unfinished[0].shortfall}"
        if not BY_TAG[tag].is_evaluation and not group.is_long_enough(tag):
            return f"{group.label} is too short: too few points of {tag} in its last tenth"
    return ""


def final_accuracy(pair: Pair) -> Contest:
    """Which mode has the higher train accuracy at the end."""
    tag = "train/accuracy"
    threshold = f"more than {ACCURACY_MARGIN} apart, and more than the noise"
    return _judged(Contest("Higher final train accuracy", threshold), pair, tag, extra_noise=0.0)


def held_out(pair: Pair) -> Contest:
    """Which mode solves more of the tasks it was not trained on, at the last evaluation.

    Tasks are few, so that a share of solved tasks is no better known than a binomial.
    """
    threshold = f"more than {ACCURACY_MARGIN} apart, and more than the noise of the seeds and of the tasks"
    contest = Contest("Better held-out score", threshold)
    both = [tag for tag in HELD_OUT_TAGS if _is_shared(tag, pair)]
    telling = [tag for tag in both if any(group.final(tag).mean > 0 for group in pair.groups)]
    if not telling:
        shown = [tag for tag in (*both[:1], HELD_OUT_TOKENS) if _is_shared(tag, pair)]
        evidence = "; ".join(_side_by_side(pair, tag) for tag in shown)
        nothing = "neither solves a held-out task" if both else _not_evaluated(pair)
        return replace(contest, evidence=evidence, reason=pair.alignment.reason or nothing)
    tasks = [group.setting("data.max_eval_groups") for group in pair.groups]
    count = min(tasks) if all(tasks) else ASSUMED_EVAL_TASKS
    noise = _binomial_noise([group.final(telling[0]).mean for group in pair.groups], count)
    judged = _judged(contest, pair, telling[0], noise)
    return replace(judged, evidence=f"{judged.evidence}; {count} tasks{'' if all(tasks) else ' assumed'}")


def _judged(contest: Contest, pair: Pair, tag: str, extra_noise: float) -> Contest:
    """The contest decided by the final values of `tag`; `extra_noise` adds to that of the seeds."""
    evidence = _side_by_side(pair, tag)
    problem = obstacle(tag, *pair.groups) or pair.alignment.reason
    if problem:
        return replace(contest, evidence=evidence, reason=problem)
    gap = difference(pair.original.final(tag), pair.online.final(tag), ONE_SEED_FLOOR)
    gap = replace(gap, noise=float(np.hypot(gap.noise, extra_noise)))
    leader = LEADERS[gap.standing(ACCURACY_MARGIN)]
    return replace(
        contest,
        leader=leader,
        evidence=f"{evidence}; difference {gap.value:+.3f}, noise ± {gap.noise:.3f}",
        reason=_too_close(gap, pair) if leader == UNDECIDED else "",
        difference=gap,
    )


def _too_close(gap: Difference, pair: Pair) -> str:
    value, noise = f"a difference of {abs(gap.value):.3f}", f"± {gap.noise:.3f}"
    if abs(gap.value) > gap.noise:
        return f"{value} {noise} may lie on either side of the margin"
    single = min(group.seeds for group in pair.groups) == 1
    return f"{value} does not stand out from {'what another seed may show' if single else 'its noise'}, {noise}"


def _side_by_side(pair: Pair, tag: str) -> str:
    values = {group.label: group.final(tag) for group in pair.groups if group.has(tag)}
    sides = ", ".join(f"{label} {with_spread(value.mean, value.spread)}" for label, value in values.items())
    return f"{BY_TAG[tag].title}: {sides or 'none'} {pair.alignment}".rstrip()


def _is_shared(tag: str, pair: Pair) -> bool:
    return all(group.has(tag) for group in pair.groups)


def _not_evaluated(pair: Pair) -> str:
    missing = [group.label for group in pair.groups if not any(group.has(tag) for tag in HELD_OUT_TAGS)]
    who = listed(missing) if missing else "the same metric in both"
    until = f" by {pair.alignment.x:,.0f} {pair.alignment.axis}" if pair.alignment.cut else ""
    return f"no share of solved held-out tasks was logged of {who}{until}"


def _binomial_noise(shares: list[float], tasks: int) -> float:
    """Twice the standard error of the difference of two shares of `tasks`.

    The shares are Agresti and Coull's (two successes and two failures more), so that 0 of 32 is not certain.
    """
    moved = [(share * tasks + 2) / (tasks + 4) for share in shares]
    return float(2 * np.sqrt(sum(share * (1 - share) / (tasks + 4) for share in moved)))
