"""Whether the original dynamics halt as the plan hopes: the Q-head knows what is right, and ACT steps are alive."""

import numpy as np

from trm_jax.comparison.judgement.contests import obstacle
from trm_jax.comparison.judgement.criteria import Criterion, Outcome, final_evidence, first
from trm_jax.comparison.record.groups import Group
from trm_jax.comparison.record.metrics import STEPS, STEPS_PER_SAMPLE
from trm_jax.comparison.record.series import Series
from trm_jax.comparison.wording import number, percent

Q_HALT_ACCURACY = 0.8  # the plan's threshold for a Q-head that predicts correctness
RIGHT_AT_ONCE = 0.9  # exact accuracy of the rows that halt from which on the fewest steps are no failure
MIN_STEPS_SHARE = 1.05  # mean ACT steps below this multiple of the fewest possible: stuck at the minimum
MAX_STEPS_SHARE = 0.95  # mean ACT steps above this share of the maximum: stuck at the maximum
STEPS_MOVEMENT = 0.5  # ACT steps between the lowest and the highest tenth of a run: less is not moving
MOVEMENT_PARTS = 10
MOVEMENT_NOISE = 4  # standard errors of one part's mean that a movement must exceed
HALTED_EXACT = "train/halted_exact_accuracy"
PLAN_MAX_STEPS = 16  # halt_max_steps of the plan, where a run does not say its own


def fewest_steps(exploration_prob: float, max_steps: int) -> float:
    """Mean ACT steps of a sample whose Q-head always says halt.

    At every step a row must, with probability `exploration_prob`, first have taken m ~ U{2..max_steps} steps,
    m drawn anew. Hence the mean is the sum of the chances that a row is still there after 0, 1, 2, … steps.
    """
    steps = np.arange(1, max_steps)
    is_enough = (steps - 1) / max(max_steps - 1, 1)  # m ≤ steps
    goes_on = exploration_prob * (1 - is_enough)
    return float(1 + np.cumprod(goes_on).sum())


def fewest_steps_of(group: Group) -> float:
    """1 where the configuration is not known."""
    settings = group.setting("arch.halt_exploration_prob"), group.setting("arch.halt_max_steps")
    return 1.0 if None in settings else fewest_steps(*settings)


def q_halt_accuracy(group: Group) -> Criterion:
    """The Q-head predicts correctness: above 80 % of the time, and more often than by always saying the same."""
    tag, exact = "train/q_halt_accuracy", "train/exact_accuracy"
    name = "Q-head predicts correctness"
    threshold = (
        f"q_halt_accuracy above {percent(Q_HALT_ACCURACY)}, and above what always saying “right”, or always "
        "“wrong”, would score"
    )
    problem = obstacle(tag, group) or obstacle(exact, group)
    if problem:
        return Criterion(name, Outcome.UNDECIDED, final_evidence(group, tag), threshold, problem)
    final, right = group.final(tag), group.final(exact)
    base_rate = max(right.mean, 1 - right.mean)
    lead, noise = final.mean - base_rate, float(np.hypot(final.noise, right.noise))
    always = f"a Q-head that always says “{'right' if right.mean > 0.5 else 'wrong'}”"
    outcome, reason = first(
        (final.mean + final.noise < Q_HALT_ACCURACY, Outcome.FAIL, ""),
        (lead < -noise, Outcome.FAIL, f"{always} would do better"),
        (final.mean - final.noise < Q_HALT_ACCURACY, Outcome.UNDECIDED, "as close to the threshold as its noise"),
        (lead <= noise, Outcome.UNDECIDED, f"{always} would do as well"),
    )
    evidence = f"{final_evidence(group, tag)}; always saying the same: {number(base_rate)}"
    return Criterion(name, outcome, evidence, threshold, reason)


def steps_are_alive(group: Group, q_head: Criterion) -> Criterion:
    """The ACT steps of a sample are stuck neither at the minimum nor at the maximum, and moved during training.

    Without a count of the samples train/steps has to do. In PyTorch runs it is the mean over rows that halt,
    which is the same; in ours that over rows in flight, whose minimum is no higher.

    Args:
        q_head: the outcome of `q_halt_accuracy`; where it passes and rows that halt are right, the minimum is
            where the steps should be.
    """
    tag = STEPS_PER_SAMPLE if group.has(STEPS_PER_SAMPLE) else STEPS
    known = group.setting("arch.halt_max_steps")
    fewest = fewest_steps_of(group)
    lowest, highest = MIN_STEPS_SHARE * fewest, MAX_STEPS_SHARE * (known or PLAN_MAX_STEPS)
    name = "ACT steps are alive"
    threshold = (
        f"final mean within {number(lowest)} … {number(highest)} (halting at once takes {number(fewest)}, the "
        f"maximum is {known or f'{PLAN_MAX_STEPS}, assumed'}), moved by {STEPS_MOVEMENT} or more"
    )
    problem = obstacle(tag, group)
    if problem:
        return Criterion(name, Outcome.UNDECIDED, final_evidence(group, tag), threshold, problem)
    final = group.final(tag)
    low, high = final.mean - final.noise, final.mean + final.noise
    moved, error = np.mean([movement(run.series[tag]) for run in group.runs], axis=0)
    outcome, reason = first(
        (low < lowest and _is_right_at_once(group, q_head), Outcome.PASS, "halting at once is right here"),
        (high < lowest, Outcome.FAIL, "stuck at the minimum"),
        (low > highest, Outcome.FAIL, "stuck at the maximum"),
        (moved < STEPS_MOVEMENT, Outcome.FAIL, "does not move"),
        (low < lowest, Outcome.UNDECIDED, "as close to the minimum as its noise"),
        (high > highest, Outcome.UNDECIDED, "as close to the maximum as its noise"),
        (moved < MOVEMENT_NOISE * error, Outcome.UNDECIDED, "too noisy to tell movement from none"),
    )
    evidence = [final_evidence(group, tag), f"moved by {number(float(moved))}", final_evidence(group, HALTED_EXACT)]
    return Criterion(name, outcome, "; ".join(filter(None, evidence)), threshold, reason)


def _is_right_at_once(group: Group, q_head: Criterion) -> bool:
    if q_head.outcome != Outcome.PASS or not group.has(HALTED_EXACT):
        return False
    return group.final(HALTED_EXACT).mean >= RIGHT_AT_ONCE


def tenths(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Means of ten equal parts of a series (fewer, of a shorter one) and their standard errors."""
    parts = np.array_split(series.values, min(MOVEMENT_PARTS, len(series)))
    errors = [part.std() / np.sqrt(len(part)) for part in parts]
    return np.array([part.mean() for part in parts]), np.array(errors)


def movement(series: Series) -> tuple[float, float]:
    """How far the lowest and the highest tenth lie apart, and the typical standard error of a tenth."""
    means, errors = tenths(series)
    return float(means.max() - means.min()), float(np.median(errors))
