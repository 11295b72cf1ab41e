"""The plan's success criteria: what validates the original dynamics, and what validates online learning."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from trm_jax.comparison.contests import (
    ACCURACY_MARGIN,
    EQUAL,
    ONLINE,
    ORIGINAL,
    UNDECIDED,
    Contest,
    obstacle,
)
from trm_jax.comparison.groups import Group
from trm_jax.comparison.metrics import BY_TAG, STEPS, STEPS_PER_SAMPLE
from trm_jax.comparison.series import Series
from trm_jax.comparison.wording import number, percent, with_spread

Q_HALT_ACCURACY = 0.8  # the plan's threshold for a Q-head that predicts correctness
MIN_STEPS = 1.05  # mean ACT steps below this: stuck at one step
MAX_STEPS_SHARE = 0.95  # mean ACT steps above this share of the maximum: stuck at the maximum
STEPS_MOVEMENT = 0.5  # ACT steps between the lowest and the highest tenth of a run: less is not moving
MOVEMENT_PARTS = 10
MOVEMENT_NOISE = 4  # standard errors of one part's mean that a movement must exceed
PLAN_MAX_STEPS = 16  # halt_max_steps of the plan, where a run does not say its own


class Outcome(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Criterion:
    name: str
    outcome: Outcome
    evidence: str
    threshold: str
    reason: str = ""  # why it is undecided, or what to keep in mind


@dataclass(frozen=True)
class Validation:
    """Whether one mode does what it was built for: all criteria pass, or one fails, or it cannot be told."""

    title: str
    criteria: tuple[Criterion, ...]

    @property
    def outcome(self) -> Outcome:
        outcomes = {criterion.outcome for criterion in self.criteria}
        if Outcome.FAIL in outcomes:
            return Outcome.FAIL
        return Outcome.UNDECIDED if Outcome.UNDECIDED in outcomes else Outcome.PASS


def validate_original(group: Group, accuracy: Contest) -> Validation:
    """`accuracy` is the contest of final accuracies of this group against the online one."""
    return Validation(
        f"Original dynamics ({group.label})",
        (q_halt_accuracy(group), steps_are_alive(group), _comparable(accuracy)),
    )


def validate_online(group: Group, accuracy: Contest, speed: Contest, held_out: Contest) -> Validation:
    return Validation(
        f"Online learning ({group.label})",
        tuple(_online_leads(contest) for contest in (speed, accuracy, held_out)),
    )


def q_halt_accuracy(group: Group) -> Criterion:
    """The Q-head predicts correctness: its final accuracy is above 80 %.

    The threshold says nothing of a model that is hardly ever right: "wrong" as every answer passes.
    """
    tag, exact = "train/q_halt_accuracy", "train/exact_accuracy"
    name, threshold = "Q-head predicts correctness", f"q_halt_accuracy above {percent(Q_HALT_ACCURACY)}"
    problem = obstacle(tag, group)
    if problem:
        return Criterion(name, Outcome.UNDECIDED, _evidence(group, tag), threshold, problem)
    final, evidence = group.final(tag), _evidence(group, tag)
    highest = 1.0  # of the exact accuracy; without it the Q-head gets the benefit of the doubt
    if group.has(exact):
        highest = max(float(tenths(run.series[exact])[0].max()) for run in group.runs)
        evidence += f"; exact accuracy up to {number(highest)}"
    outcome, reason = _first(
        (final.mean + final.noise < Q_HALT_ACCURACY, Outcome.FAIL, ""),
        (
            final.mean - final.noise < Q_HALT_ACCURACY,
            Outcome.UNDECIDED,
            "as close to the threshold as its noise",
        ),
        (
            highest < 1 - Q_HALT_ACCURACY,
            Outcome.UNDECIDED,
            "the model is right so rarely that a Q-head that always says “wrong” would pass as well",
        ),
    )
    return Criterion(name, outcome, evidence, threshold, reason)


def steps_are_alive(group: Group) -> Criterion:
    """The ACT steps of a sample are stuck neither at 1 nor at the maximum, and moved during training.

    Without a count of the samples train/steps has to do: in PyTorch runs the mean over rows that halt.
    """
    tag = STEPS_PER_SAMPLE if group.has(STEPS_PER_SAMPLE) else STEPS
    known = group.setting("arch.halt_max_steps")
    highest = MAX_STEPS_SHARE * (known or PLAN_MAX_STEPS)
    name = "ACT steps are alive"
    threshold = (
        f"final mean within {MIN_STEPS} … {number(highest)} (of {known or f'{PLAN_MAX_STEPS}, assumed'}), "
        f"moved by {STEPS_MOVEMENT} or more"
    )
    problem = obstacle(tag, group)
    if problem:
        return Criterion(name, Outcome.UNDECIDED, _evidence(group, tag), threshold, problem)
    final, evidence = group.final(tag), _evidence(group, tag)
    moved, error = np.mean([movement(run.series[tag]) for run in group.runs], axis=0)
    outcome, reason = _first(
        (final.mean + final.noise < MIN_STEPS, Outcome.FAIL, "stuck at one step"),
        (final.mean - final.noise > highest, Outcome.FAIL, "stuck at the maximum"),
        (moved < STEPS_MOVEMENT, Outcome.FAIL, "does not move"),
        (final.mean - final.noise < MIN_STEPS, Outcome.UNDECIDED, "as close to one step as its noise"),
        (final.mean + final.noise > highest, Outcome.UNDECIDED, "as close to the maximum as its noise"),
        (moved < MOVEMENT_NOISE * error, Outcome.UNDECIDED, "too noisy to tell movement from none"),
    )
    return Criterion(name, outcome, f"{evidence}; moved by {number(float(moved))}", threshold, reason)


def _evidence(group: Group, tag: str) -> str:
    if not group.has(tag):
        return ""
    final = group.final(tag)
    return f"{BY_TAG[tag].title}: {with_spread(final.mean, final.spread)} at the end"


def _first(*checks: tuple[bool, Outcome, str]) -> tuple[Outcome, str]:
    """Outcome and reason of the first check that holds; a pass where none does."""
    return next(((outcome, reason) for holds, outcome, reason in checks if holds), (Outcome.PASS, ""))


def tenths(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Means of ten equal parts of a series (fewer, of a shorter one) and their standard errors."""
    parts = np.array_split(series.values, min(MOVEMENT_PARTS, len(series)))
    errors = [part.std() / np.sqrt(len(part)) for part in parts]
    return np.array([part.mean() for part in parts]), np.array(errors)


def movement(series: Series) -> tuple[float, float]:
    """How far the lowest and the highest tenth lie apart, and the typical standard error of a tenth."""
    means, errors = tenths(series)
    return float(means.max() - means.min()), float(np.median(errors))


def _comparable(accuracy: Contest) -> Criterion:
    """Final accuracy is at least comparable with online learning's: not below it by more than the margin."""
    name = "Final accuracy at least comparable"
    threshold = f"no more than {ACCURACY_MARGIN} below online learning's"
    gap = accuracy.difference
    outcome, reason = Outcome.UNDECIDED, accuracy.reason
    if gap is not None and gap.is_not_below(ACCURACY_MARGIN):
        outcome, reason = Outcome.PASS, ""
    elif accuracy.leader == ONLINE:
        outcome = Outcome.FAIL
    return Criterion(name, outcome, accuracy.evidence, threshold, reason)


def _online_leads(contest: Contest) -> Criterion:
    outcomes = {
        ONLINE: Outcome.PASS,
        ORIGINAL: Outcome.FAIL,
        EQUAL: Outcome.FAIL,
        UNDECIDED: Outcome.UNDECIDED,
    }
    outcome = outcomes[contest.leader]
    return Criterion(contest.question, outcome, contest.evidence, contest.threshold, contest.reason)
