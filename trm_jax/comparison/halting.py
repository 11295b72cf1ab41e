"""Whether the original dynamics halt as the plan hopes: a Q-head that knows what is right, and ACT steps that move."""

from dataclasses import replace

import numpy as np

from trm_jax.comparison.criteria import Finding
from trm_jax.comparison.groups import Group
from trm_jax.comparison.statistics import Standing, difference, part_means
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.wording import number, percent, with_spread
from trm_jax.metric_table import BY_TAG, EXACT, Q_HEAD


def q_head(group: Group) -> Finding:
    """The Q-head knows what is right: above the plan's 80 %.

    A head whose rows are hardly ever right has nothing to predict: always saying the same would do as well.
    """
    threshold = percent(THRESHOLDS.q_halt_accuracy)
    finding = Finding("Q-head predicts correctness", group.label, threshold, needs=f"above {threshold}")
    if problem := group.unready(Q_HEAD):
        return replace(finding, reason=problem)
    final = group.final(Q_HEAD, of_diverged=0.0)
    apart = difference(final, THRESHOLDS.q_halt_accuracy, THRESHOLDS.seed_sd)
    # No branch hangs on it: it need not be as sure as a difference between the modes.
    finding = finding.settled(replace(apart, noise=apart.equal_noise), 0.0)
    evidence = f"right in {with_spread(final.values())}"
    if exact := EXACT if group.has(EXACT) else group.exact:
        right = float(np.nanmean(list(group.final(exact).values())))
        evidence += f"; always saying the same would be in {number(max(right, 1 - right))}"
        if right < THRESHOLDS.some_right and finding.standing == Standing.BETTER:
            finding = replace(finding, standing=Standing.UNDECIDED, reason="its rows are hardly ever right")
    return replace(finding, evidence=evidence, numbers={group.label: final})


def act_steps(group: Group, q_head: Finding) -> Finding:
    """The ACT steps of rows that halt are stuck neither at the fewest nor at the most, and moved: in every seed.

    Where the Q-head is right and so are the answers, halting at once is where the steps should be.
    """
    tag = group.steps
    most = float(group.setting("arch.halt_max_steps", int) or 16)  # of the plan, where a run does not say its own
    fewest = fewest_steps(float(group.setting("arch.halt_exploration_prob", int | float) or 0.0), int(most))
    edge = THRESHOLDS.stuck_share * (most - fewest)
    finding = Finding("ACT steps are alive", group.label, f"{number(fewest)} … {number(most)}", needs=(
        f"within {number(fewest + edge)} … {number(most - edge)} and moved by {THRESHOLDS.steps_movement}, or halting "
        f"at once where {percent(THRESHOLDS.right_at_once)} of the answers are right"))
    if problem := group.unready(tag):
        return replace(finding, reason=problem)
    final = {seed: value for seed, value in group.final(tag).items() if np.isfinite(value)}
    moved = {run.seed: float(np.ptp(part_means(run.series[tag].values, 10))) for run in group.sound}
    right = group.final(group.exact)
    faults, remark = {}, ""
    for seed, value in final.items():
        if value > most - edge:
            faults[seed] = "stuck at the maximum"
        elif value >= fewest + edge:
            faults |= {seed: "does not move"} if moved[seed] < THRESHOLDS.steps_movement else {}
        elif q_head.standing == Standing.BETTER and right[seed] >= THRESHOLDS.right_at_once:
            remark = "halting at once is right here"
        else:
            faults[seed] = "stuck at the minimum"
    standing = Standing.BETTER if not faults else Standing.WORSE if len(faults) == len(final) else Standing.UNDECIDED
    reason = "; ".join(sorted(set(faults.values()))) + " in some seeds" * (standing == Standing.UNDECIDED)
    return replace(finding, standing=standing, reason=reason or remark, numbers={
        group.label: final, "moved": moved, "tag": tag}, evidence=(
        f"{BY_TAG[tag].title}: {with_spread(final.values())}, moved by {with_spread(moved.values())}"))


def fewest_steps(exploration_prob: float, max_steps: int) -> float:
    """Mean ACT steps of a sample whose Q-head always says halt: the sum of the chances that it takes 1, 2, 3, … steps.

    At every step it must, with `exploration_prob`, first have taken m ~ U{2..max_steps} steps, m drawn anew.
    """
    goes_on = exploration_prob * np.linspace(1, 0, max_steps)[:-1]  # from step 1, 2, …, where 1 − (steps − 1)/(max − 1)
    return float(1 + np.cumprod(goes_on).sum())
