"""The plan's criteria, a function each: how the original dynamics stand to online learning, and whether they halt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trm_jax.comparison.groups import Group, equally_long
from trm_jax.comparison.statistics import Difference, Seeds, Standing, above, difference
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.wording import listed, number, percent, with_spread
from trm_jax.metric_table import ANSWERED, BY_TAG, EXACT, HALTED_STEPS, Q_HEAD, STEPS, TOKENS

SPEED_AXIS = "epochs"  # what the plan counts; the other axes stand beside it
SPEED_MARGIN = -float(np.log(1 - THRESHOLDS.speed_margin))  # of a logarithm of times
PLAN_MAX_STEPS = 16  # halt_max_steps of the plan, where a run does not say its own


@dataclass(frozen=True)
class Finding:
    """How `subject` stands to `against` in one question, on what evidence.

    Attributes:
        needs: the threshold, in words.
        evidence: in words; `numbers` has the same and more as plain values.
        reason: why it is undecided, or what to keep in mind.
    """

    question: str
    subject: str
    against: str
    standing: Standing = Standing.UNDECIDED
    needs: str = ""
    evidence: str = ""
    reason: str = ""
    difference: Difference | None = None
    numbers: dict[str, Any] = field(default_factory=dict)

    def reversed(self) -> "Finding":
        """The same, asked of the other side."""
        return replace(self, subject=self.against, against=self.subject, standing=-self.standing,
                       difference=None if self.difference is None else -self.difference)

    def settled(self, apart: Difference, margin: float, problem: str = "") -> "Finding":
        """The finding that a difference makes, unless there is a problem; why where it is undecided."""
        standing = Standing.UNDECIDED if problem else apart.standing(margin)
        close = "may lie on either side of the margin" if abs(apart.value) > apart.noise else "is within the noise"
        reason = problem or (f"the difference {close}" if standing == Standing.UNDECIDED else "")
        return replace(self, standing=standing, difference=apart, reason=reason)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two groups as they are to be compared: at their ends if these are equally far, or else at the nearest.

    Attributes:
        whole: both groups, uncut.
        at: where, in words.
        problem: why their final values do not decide; "" if they do.
        tag: the exact accuracy that both have; "" for none.
    """

    groups: tuple[Group, Group]
    whole: tuple[Group, Group]
    tag: str
    at: str = ""
    problem: str = ""


def aligned(a: Group, b: Group) -> Pair:
    """Both groups at a point of their training that they have in common.

    Runs that are equally long, in epochs or else in updates, are compared at their ends. Others are cut where the
    shortest ends; one whose learning rate comes down towards its end is not itself when it is cut.
    """
    whole = (a, b)
    sound = [group for group in whole if not group.all_diverged]
    tag = next((tag for tag in (ANSWERED, EXACT) if all(group.has(tag) for group in sound)), "")
    unfinished = [f"{run.label} {run.shortfall}" for group in whole for run in group.unfinished]
    problem = "both diverged" if not sound else listed(unfinished[:3]) if unfinished else ""
    if not tag and not problem:
        lacking = [group.label for group in sound if not exact_tag(group)]
        problem = f"no exact accuracy was logged of {listed(lacking) if lacking else 'both alike'}"
    problem = problem or next(filter(None, (_too_short(group, tag) for group in sound)), "")
    axes = [axis for axis in ("epochs", "updates") if all(group.has_axis(axis) for group in whole)]
    if not axes or len(sound) < 2:
        return Pair(whole, whole, tag, "", problem or ("" if axes else f"{a.label} and {b.label} share no axis"))
    for axis in axes:
        if equally_long(axis, *whole):
            return Pair(whole, whole, tag, f"at {number(min(a.ends(axis) + b.ends(axis)))} {axis}", problem)
    axis, x = axes[0], min(a.ends(axes[0]) + b.ends(axes[0]))
    longer = [group for group in whole if max(group.ends(axis)) > (1 + THRESHOLDS.length_tolerance) * x]
    annealed = [group.label for group in longer if (group.runs[0].setting("optim.lr_min_ratio") or 1) < 1]
    if annealed and not problem:
        problem = f"{listed(annealed)} would be cut at {number(x)} {axis}, before its learning rate has come down"
    at = f"at {number(x)} {axis}, where {listed([group.label for group in longer])} went on"
    return Pair((a.until(axis, x), b.until(axis, x)), whole, tag, at, problem)


def exact_tag(group: Group) -> str:
    return next((tag for tag in (ANSWERED, EXACT) if group.has(tag)), "")


# ── Mode against mode ──


def final_accuracy(pair: Pair) -> Finding:
    """Exact accuracy of the rows that answer, at the end; a seed that diverged answers nothing right.

    Token accuracy saturates, and rows in flight are of other ages in each mode: neither decides.
    """
    a, b = pair.groups
    finding = Finding("final exact accuracy", a.label, b.label,
                      needs=f"more than {THRESHOLDS.accuracy_margin} apart, and more than the noise")
    if not pair.tag:
        return replace(finding, reason=pair.problem)
    values = [group.final(pair.tag, of_diverged=0.0) for group in pair.groups]
    apart = difference(values[0], values[1], THRESHOLDS.seed_sd)
    tokens = ""
    if all(group.has(TOKENS) for group in pair.groups):
        tokens = f"; token accuracy {sides(pair, [group.final(TOKENS, 0.0) for group in pair.groups])}"
    place = f" {pair.at}" if pair.at else ""
    evidence = f"{BY_TAG[pair.tag].title} {sides(pair, values)}{place}, difference {apart}{tokens}"
    finding = replace(finding, numbers={"tag": pair.tag} | numbers_of(pair, values), evidence=evidence)
    return finding.settled(apart, THRESHOLDS.accuracy_margin, pair.problem)


def speed(pair: Pair) -> Finding:
    """Epochs to the highest level of exact accuracy that all seeds of both clearly reach.

    That one side never reaches a level counts only where the final values differ: else it says where the level lies.
    """
    a, b = pair.whole
    finding = Finding(f"{SPEED_AXIS} to the same exact accuracy", a.label, b.label,
                      needs=f"at least {percent(THRESHOLDS.speed_margin)} fewer, and by more than the noise")
    axes = [axis for axis in (SPEED_AXIS, "updates", "hours") if a.has_axis(axis) and b.has_axis(axis)]
    if not pair.tag or SPEED_AXIS not in axes:
        return replace(finding, reason=f"the {SPEED_AXIS} of both are not known" if pair.tag else pair.problem)
    top = min(value for group in pair.whole for value in group.final(pair.tag, 0.0).values())
    starts = [run.series[pair.tag].values[0] for group in pair.whole for run in group.runs if run.has(pair.tag)]
    crossed = [level for level in THRESHOLDS.levels if max(starts) < level <= top - THRESHOLDS.accuracy_margin]
    if not crossed:
        return _never(finding, pair)
    level = max(crossed)
    logs = {axis: [{seed: float(np.log(max(time, 1e-9))) for seed, time in group.reach(pair.tag, level, axis).items()}
                   for group in pair.whole] for axis in axes}
    ratios = {axis: float(np.exp(_mean(ours) - _mean(theirs))) for axis, (ours, theirs) in logs.items()}
    times = [group.reach(pair.tag, level, SPEED_AXIS) for group in pair.whole]
    apart = difference(logs[SPEED_AXIS][1], logs[SPEED_AXIS][0], THRESHOLDS.seed_log_time_sd)
    ratio, low, high = (number(float(np.exp(-apart.value + shift))) for shift in (0.0, -apart.noise, apart.noise))
    others = "".join(f"; {number(value)} × the {axis}" for axis, value in ratios.items() if axis != SPEED_AXIS)
    evidence = (f"to {percent(level)} {sides(pair, times)} {SPEED_AXIS}: {a.label} takes {ratio} × those of {b.label} "
                f"({low} … {high}){others}")
    numbers = {"level": level, "ratios": ratios} | numbers_of(pair, times)
    return replace(finding, evidence=evidence, numbers=numbers).settled(apart, SPEED_MARGIN)


def comparable(pair: Pair) -> Finding:
    """Whether the first group's final accuracy is at least the other's, give or take the margin."""
    margin, accuracy = THRESHOLDS.accuracy_margin, final_accuracy(pair)
    apart, standing = accuracy.difference, accuracy.standing
    if apart is not None and not pair.problem and apart.value - apart.equal_noise >= -margin:
        standing = Standing.BETTER
    return replace(accuracy, question="final accuracy comparable or better", standing=standing,
                   needs=f"no more than {margin} below {accuracy.against}")


# ── Halting ──


def q_head(group: Group) -> Finding:
    """The Q-head knows what is right: above the plan's 80 %.

    What always saying the same would score says little at the end, where nearly all is right; it is given for the part
    of training in which between 10 and 90 % were. A head whose rows are hardly ever right has had nothing to predict.
    """
    threshold = percent(THRESHOLDS.q_halt_accuracy)
    finding = Finding("Q-head predicts correctness", group.label, threshold, needs=f"above {threshold}")
    problem = _unready(group, Q_HEAD)
    if problem:
        return replace(finding, reason=problem)
    final = group.final(Q_HEAD, of_diverged=0.0)
    apart = above(final, THRESHOLDS.q_halt_accuracy, THRESHOLDS.seed_sd)
    # No branch hangs on it: it need not be as sure as a difference between the modes.
    finding = replace(finding, evidence=f"right in {with_spread(list(final.values()))}", numbers={
        group.label: dict(final)}).settled(replace(apart, noise=apart.equal_noise), 0.0)
    exact = EXACT if group.has(EXACT) else exact_tag(group)
    if not exact:
        return finding
    lead = _lead_over_constant(group, exact)
    if lead is not None:
        return replace(finding, numbers=finding.numbers | {"lead_over_constant": lead}, evidence=(
            f"{finding.evidence}; while 10 to 90 % were right, {lead:+.2f} against always saying the same"))
    if np.nanmean(list(group.final(exact).values())) < 0.1 and finding.standing == Standing.BETTER:
        return replace(finding, standing=Standing.UNDECIDED,
                       reason="its rows are hardly ever right: always saying “wrong” does as well")
    return finding


def act_steps(group: Group, q_head: Finding) -> Finding:
    """The ACT steps of rows that halt are stuck neither at the fewest nor at the most, and moved: in every seed.

    Where the Q-head is right and so are the answers, halting at once is where the steps should be.
    """
    tag = HALTED_STEPS if group.has(HALTED_STEPS) else STEPS
    setting = group.runs[0].setting
    most = float(setting("arch.halt_max_steps") or PLAN_MAX_STEPS)
    fewest = fewest_steps(float(setting("arch.halt_exploration_prob") or 0.0), int(most))
    edge = THRESHOLDS.stuck_share * (most - fewest)
    finding = Finding("ACT steps are alive", group.label, f"{number(fewest)} … {number(most)}", needs=(
        f"within {number(fewest + edge)} … {number(most - edge)} and moved by {THRESHOLDS.steps_movement}, or halting "
        f"at once where {percent(THRESHOLDS.right_at_once)} of the answers are right"))
    problem = _unready(group, tag)
    if problem:
        return replace(finding, reason=problem)
    final = {seed: value for seed, value in group.final(tag).items() if np.isfinite(value)}
    moved = {run.seed: movement(run.series[tag].values) for run in group.runs if not run.diverged}
    right = group.final(exact_tag(group)) if exact_tag(group) else {}
    states = []
    for seed, value in final.items():
        at_once = q_head.standing == Standing.BETTER and right.get(seed, 0.0) >= THRESHOLDS.right_at_once
        states.append(
            ("halting at once is right here" if at_once else "stuck at the minimum") if value < fewest + edge else
            "stuck at the maximum" if value > most - edge else
            "" if moved[seed] >= THRESHOLDS.steps_movement else "does not move")
    failed = [state.startswith(("stuck", "does")) for state in states]
    standing = Standing.WORSE if all(failed) else Standing.UNDECIDED if any(failed) else Standing.BETTER
    reason = "; ".join(dict.fromkeys(filter(None, states)))
    return replace(finding, standing=standing, numbers={group.label: final, "moved": moved, "tag": tag},
                   reason=f"{reason} in some seeds" if standing == Standing.UNDECIDED else reason,
                   evidence=f"{BY_TAG[tag].title}: {with_spread(list(final.values()))}, moved by "
                            f"{with_spread(list(moved.values()))}")


def fewest_steps(exploration_prob: float, max_steps: int) -> float:
    """Mean ACT steps of a sample whose Q-head always says halt.

    At every step a row must, with probability `exploration_prob`, first have taken m ~ U{2..max_steps} steps, m drawn
    anew. Hence the mean is the sum of the chances that a row is still there after 0, 1, 2, … steps.
    """
    steps = np.arange(1, max_steps)
    goes_on = exploration_prob * (1 - (steps - 1) / max(max_steps - 1, 1))
    return float(1 + np.cumprod(goes_on).sum())


def movement(values: np.ndarray) -> float:
    """How far the lowest and the highest of ten equal parts of a curve lie apart."""
    means = [part.mean() for part in np.array_split(values, min(10, len(values)))]
    return float(max(means) - min(means))


# ── What they are made of ──


def sides(pair: Pair, values: Sequence[Seeds]) -> str:
    return ", ".join(f"{group.label} {with_spread(list(side.values()))}"
                     for group, side in zip(pair.groups, values, strict=True))


def numbers_of(pair: Pair, values: Sequence[Seeds]) -> dict[str, Any]:
    return {group.label: dict(side) for group, side in zip(pair.groups, values, strict=True)}


def _mean(values: Mapping[int, float]) -> float:
    return float(np.mean(list(values.values())))


def _too_short(group: Group, tag: str) -> str:
    short = any(len(run.series[tag].last_part()) < THRESHOLDS.min_final_points for run in group.runs
                if run.has(tag) and not run.diverged)
    return f"{group.label} is too short: too few points of {tag} in its last tenth" if short else ""


def _unready(group: Group, tag: str) -> str:
    """Why a group has no final value of `tag`; '' if it has."""
    if group.all_diverged:
        return f"{group.label} diverged"
    if not group.has(tag):
        return f"{group.label} did not log {tag}"
    return next((f"{run.label} {run.shortfall}" for run in group.unfinished), "") or _too_short(group, tag)


def _never(finding: Finding, pair: Pair) -> Finding:
    """No level that both clearly reach: one that only the side with the higher final accuracy reaches counts."""
    accuracy = final_accuracy(pair)
    if accuracy.standing in (Standing.BETTER, Standing.WORSE):
        ahead, behind = pair.whole if accuracy.standing == Standing.BETTER else pair.whole[::-1]
        best = max(behind.final(pair.tag, 0.0).values()) + THRESHOLDS.accuracy_margin
        for level in reversed(THRESHOLDS.levels):
            times = list(ahead.reach(pair.tag, level, SPEED_AXIS).values())
            if best < level <= min(ahead.final(pair.tag, 0.0).values()) and np.isfinite(times).all():
                return replace(finding, standing=accuracy.standing, numbers={"level": level, ahead.label: times},
                               evidence=f"to {percent(level)}: {ahead.label} {with_spread(times)} {SPEED_AXIS}, "
                                        f"{behind.label} never")
    levels = listed([percent(level) for level in THRESHOLDS.levels])
    return replace(finding, reason=f"none of the levels {levels} is clearly reached by every seed of both")


def _lead_over_constant(group: Group, exact: str) -> float | None:
    """How much more often the Q-head is right than always saying the same, where 10 to 90 % of rows are right."""
    leads: list[float] = []
    for run in group.runs:
        if run.has(Q_HEAD) and run.has(exact) and not run.diverged:
            _, i, j = np.intersect1d(run.series[Q_HEAD].steps, run.series[exact].steps, return_indices=True)
            right, head = run.series[exact].values[j], run.series[Q_HEAD].values[i]
            leads += list((head - np.maximum(right, 1 - right))[(right > 0.1) & (right < 0.9)])
    return float(np.mean(leads)) if leads else None
