"""The plan's criteria, a function each: how the original dynamics stand to online learning, and whether they halt."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trm_jax.comparison.groups import Group, equally_long
from trm_jax.comparison.statistics import Difference, Standing, above, difference
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.wording import listed, number, percent, seeds, with_spread
from trm_jax.metric_table import ANSWERED, BY_TAG, EXACT, HALTED_STEPS, Q_HEAD, STEPS, TOKENS

SPEED_AXIS = "epochs"  # what the plan counts; the other axes stand beside it
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


@dataclass(frozen=True, eq=False)
class Pair:
    """Two groups as they are to be compared: at their ends if these are equally far, or else at the nearest.

    Attributes:
        whole: both groups, uncut.
        at: where, in words.
        problem: why their final values do not decide; "" if they do.
        tag: the exact accuracy that both have; "" for none.
    """

    original: Group
    online: Group
    whole: tuple[Group, Group]
    at: str
    problem: str
    tag: str

    @property
    def groups(self) -> tuple[Group, Group]:
        return self.original, self.online


def aligned(a: Group, b: Group) -> Pair:
    """Both groups at a point of their training that they have in common.

    Runs that are equally long, in epochs or else in updates, are compared at their ends. Others are cut where the
    shortest ends; one whose learning rate comes down towards its end is not itself when it is cut.
    """
    shared = [axis for axis in ("epochs", "updates") if a.has_axis(axis) and b.has_axis(axis)]
    finished = [group for group in (a, b) if not group.all_diverged]
    unfinished = [run for group in (a, b) for run in group.unfinished]
    problem = listed([f"{run.label} {run.shortfall}" for run in unfinished[:3]]) if unfinished else ""
    tag = next((tag for tag in (ANSWERED, EXACT) if all(group.has(tag) for group in finished)), "")
    if not shared or len(finished) < 2:
        nothing = "" if shared else f"there is no axis to lay {a.label} and {b.label} over each other by"
        return Pair(a, b, (a, b), "", problem or nothing, tag)
    for axis in shared:
        if equally_long(axis, a, b):
            return Pair(a, b, (a, b), f"at {number(min(a.ends(axis) + b.ends(axis)))} {axis}", problem, tag)
    axis = shared[0]
    x = min(a.ends(axis) + b.ends(axis))
    longer = [group for group in (a, b) if max(group.ends(axis)) > (1 + THRESHOLDS.length_tolerance) * x]
    annealed = [group.label for group in longer if (group.runs[0].setting("optim.lr_min_ratio") or 1) < 1]
    if annealed and not problem:
        problem = f"{listed(annealed)} would be cut at {number(x)} {axis}, before its learning rate has come down"
    at = f"at {number(x)} {axis}, where {listed([group.label for group in longer])} went on"
    return Pair(a.until(axis, x), b.until(axis, x), (a, b), at, problem, tag)


# ── Mode against mode ──


def final_accuracy(pair: Pair) -> Finding:
    """Exact accuracy of the rows that answer, at the end; a seed that diverged answers nothing right.

    Token accuracy saturates, and rows in flight are of other ages in each mode: neither decides.
    """
    a, b = pair.groups
    finding = Finding("final exact accuracy", a.label, b.label,
                      needs=f"more than {THRESHOLDS.accuracy_margin} apart, and more than the noise")
    problem = _obstacle(pair, pair.tag)
    if not pair.tag:
        return replace(finding, reason=problem)
    values = [group.final(pair.tag, of_diverged=0.0) for group in pair.groups]
    if not all(np.isfinite(list(side.values())).all() for side in values):
        return replace(finding, reason=problem)
    apart = difference(values[0], values[1], THRESHOLDS.seed_sd)
    standing = Standing.UNDECIDED if problem else apart.standing(THRESHOLDS.accuracy_margin)
    tokens = ""
    if all(group.has(TOKENS) for group in pair.groups):
        tokens = f"; token accuracy {_sides(pair, *(group.final(TOKENS, 0.0) for group in pair.groups))}"
    return replace(
        finding, standing=standing, difference=apart, reason=problem or _too_close(apart, standing, pair),
        evidence=f"{BY_TAG[pair.tag].title} {_sides(pair, *values)} {pair.at}, difference "
                 f"{apart.value:+.3f} ± {apart.noise:.3f}{tokens}".replace("  ", " "),
        numbers={"tag": pair.tag, **{group.label: dict(side) for group, side in zip(pair.groups, values, strict=True)}})


def speed(pair: Pair) -> Finding:
    """Epochs to the highest level of exact accuracy that all seeds of both clearly reach.

    That one side never reaches a level counts only where the final values differ: else it says where the level lies.
    """
    a, b = whole = pair.whole
    finding = Finding(f"{SPEED_AXIS} to the same exact accuracy", a.label, b.label,
                      needs=f"at least {percent(THRESHOLDS.speed_margin)} fewer, and by more than the noise")
    if not pair.tag or not all(group.has_axis(SPEED_AXIS) for group in whole):
        missing = _obstacle(pair, pair.tag) if not pair.tag else f"the {SPEED_AXIS} of both are not known"
        return replace(finding, reason=missing)
    top = min(min(group.final(pair.tag, 0.0).values()) for group in whole) - THRESHOLDS.accuracy_margin
    crossed = [level for level in THRESHOLDS.levels if level <= top
               and not any(_starts_above(group, pair.tag, level) for group in whole)]
    if not crossed:
        return _never(finding, pair)
    level = max(crossed)
    times = [group.reach(pair.tag, level, SPEED_AXIS) for group in whole]
    logs = [{seed: float(np.log(time)) for seed, time in side.items()} for side in times]
    apart = difference(logs[1], logs[0], THRESHOLDS.seed_log_time_sd)
    standing = apart.standing(-float(np.log(1 - THRESHOLDS.speed_margin)))
    ratio, low, high = (float(np.exp(-apart.value + shift)) for shift in (0.0, -apart.noise, apart.noise))
    ratios = {axis: float(np.exp(np.mean(np.log(list(_times(whole[0], pair.tag, level, axis).values())))
                                 - np.mean(np.log(list(_times(whole[1], pair.tag, level, axis).values())))))
              for axis in _shared_axes(whole)}
    others = "; ".join(f"{number(value)} × the {axis}" for axis, value in ratios.items() if axis != SPEED_AXIS)
    return replace(
        finding, standing=standing, difference=apart,
        reason=_too_close(apart, standing, pair, f"a ratio of {number(ratio)}"),
        evidence=f"to {percent(level)} {_sides(pair, *times)} {SPEED_AXIS}: {a.label} takes {number(ratio)} × those of "
                 f"{b.label} ({number(low)} … {number(high)})" + (f"; {others}" if others else ""),
        numbers={"level": level, "ratios": ratios,
                 **{group.label: dict(side) for group, side in zip(whole, times, strict=True)}})


def comparable(accuracy: Finding) -> Finding:
    """Whether the subject's final accuracy is at least the other's, give or take the margin."""
    margin, apart = THRESHOLDS.accuracy_margin, accuracy.difference
    standing = Standing.UNDECIDED
    if accuracy.standing == Standing.WORSE:
        standing = Standing.WORSE
    elif accuracy.standing != Standing.UNDECIDED or (apart is not None and not accuracy.reason.startswith("so far")
                                                     and apart.value - apart.equal_noise >= -margin):
        standing = Standing.BETTER
    return replace(accuracy, question="final accuracy comparable or better", standing=standing,
                   needs=f"no more than {margin} below {accuracy.against}")


# ── Halting ──


def q_head(group: Group) -> Finding:
    """The Q-head knows what is right: above the plan's 80 %.

    What always saying the same would score says little at the end, where nearly all is right; it is given for the part
    of training in which between 10 and 90 % were. A head whose rows are hardly ever right has had nothing to predict.
    """
    threshold = THRESHOLDS.q_halt_accuracy
    finding = Finding("Q-head predicts correctness", group.label, percent(threshold),
                      needs=f"above {percent(threshold)}")
    problem = _of_one(group, Q_HEAD)
    if problem:
        return replace(finding, reason=problem)
    final = group.final(Q_HEAD, of_diverged=0.0)
    apart = above(final, threshold, THRESHOLDS.seed_sd)
    standing, reason = apart.standing(0.0), ""
    if standing == Standing.UNDECIDED:
        reason = f"{number(float(np.mean(list(final.values()))))} is no further from it than its noise"
    tag = EXACT if group.has(EXACT) else ANSWERED
    numbers: dict[str, Any] = {group.label: dict(final)}
    evidence = f"right in {with_spread(list(final.values()))}"
    if group.has(tag):
        lead = _lead_over_constant(group, tag)
        if lead is not None:
            numbers["lead_over_constant"] = lead
            evidence += f"; while 10 to 90 % were right, {lead:+.2f} against always saying the same"
        right = float(np.nanmean(list(group.final(tag).values())))
        if lead is None and right < 0.1 and standing == Standing.BETTER:
            standing, reason = Standing.UNDECIDED, "its rows are hardly ever right: always saying “wrong” does as well"
    return replace(finding, standing=standing, difference=apart, evidence=evidence, reason=reason, numbers=numbers)


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
    problem = _of_one(group, tag)
    if problem:
        return replace(finding, reason=problem)
    final = {seed: value for seed, value in group.final(tag).items() if np.isfinite(value)}
    moved = {run.seed: movement(run.series[tag].values) for run in group.runs if not run.diverged}
    exact = ANSWERED if group.has(ANSWERED) else EXACT
    right = group.final(exact) if group.has(exact) else {}
    at_once = q_head.standing == Standing.BETTER
    states = []
    for seed, value in final.items():
        if value < fewest + edge:
            is_right = at_once and right.get(seed, 0.0) >= THRESHOLDS.right_at_once
            states.append("halting at once is right here" if is_right else "stuck at the minimum")
        elif value > most - edge:
            states.append("stuck at the maximum")
        else:
            states.append("" if moved[seed] >= THRESHOLDS.steps_movement else "does not move")
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


def _obstacle(pair: Pair, tag: str) -> str:
    """Why there are no final values to compare; '' if there are."""
    if all(group.all_diverged for group in pair.groups):
        return "both diverged"
    if not tag:
        lacking = [group.label for group in pair.groups if not (group.has(ANSWERED) or group.has(EXACT))]
        return f"no exact accuracy was logged of {listed(lacking) if lacking else 'both alike'}"
    return pair.problem or next(filter(None, (_too_short(group, tag) for group in pair.groups)), "")


def _too_short(group: Group, tag: str) -> str:
    short = any(len(run.series[tag].last_part()) < THRESHOLDS.min_final_points for run in group.runs if run.has(tag)
                and not run.diverged)
    return f"{group.label} is too short: too few points of {tag} in its last tenth" if short else ""


def _of_one(group: Group, tag: str) -> str:
    """Why one group has no final value of `tag`; '' if it has."""
    if group.all_diverged:
        return f"{group.label} diverged"
    if not group.has(tag):
        return f"{group.label} did not log {tag}"
    if group.unfinished:
        return f"{group.unfinished[0].label} {group.unfinished[0].shortfall}"
    return _too_short(group, tag)


def _sides(pair: Pair, a: Any, b: Any) -> str:
    labels = [group.label for group in pair.groups]
    return ", ".join(f"{label} {with_spread(list(side.values()))}" for label, side in zip(labels, (a, b), strict=True))


def _too_close(apart: Difference, standing: Standing, pair: Pair, value: str = "") -> str:
    if standing != Standing.UNDECIDED:
        return ""
    single = min(len(group.seeds) for group in pair.groups) == 1
    value = value or f"a difference of {abs(apart.value):.3f}"
    if abs(apart.value) > apart.noise:
        return f"{value} may lie on either side of the margin"
    return f"{value} does not stand out from {'what another seed may show' if single else 'the spread of the seeds'}"


def _never(finding: Finding, pair: Pair) -> Finding:
    """No level that both clearly reach: one that only the side with the higher final accuracy reaches counts."""
    accuracy = final_accuracy(pair)
    if accuracy.standing in (Standing.BETTER, Standing.WORSE):
        ahead, behind = pair.whole if accuracy.standing == Standing.BETTER else pair.whole[::-1]
        for level in reversed(THRESHOLDS.levels):
            times = ahead.reach(pair.tag, level, SPEED_AXIS)
            if (max(behind.final(pair.tag, 0.0).values()) < level - THRESHOLDS.accuracy_margin
                    and min(ahead.final(pair.tag, 0.0).values()) >= level and np.isfinite(list(times.values())).all()):
                return replace(finding, standing=accuracy.standing, numbers={"level": level, ahead.label: dict(times)},
                               evidence=f"to {percent(level)}: {ahead.label} {with_spread(list(times.values()))} "
                                        f"{SPEED_AXIS}, {behind.label} never")
    levels = listed([percent(level) for level in THRESHOLDS.levels])
    return replace(finding, reason=f"none of the levels {levels} is clearly reached by every seed of both "
                                   f"({seeds(len(pair.original.seeds))}, {seeds(len(pair.online.seeds))})")


def _starts_above(group: Group, tag: str, level: float) -> bool:
    return all(run.series[tag].values[0] >= level for run in group.runs if run.has(tag))


def _shared_axes(groups: tuple[Group, Group]) -> list[str]:
    return [axis for axis in ("epochs", "updates", "hours") if all(group.has_axis(axis) for group in groups)]


def _times(group: Group, tag: str, level: float, axis: str) -> dict[int, float]:
    return {seed: max(time, 1e-9) for seed, time in group.reach(tag, level, axis).items()}


def _lead_over_constant(group: Group, exact_tag: str) -> float | None:
    """How much more often the Q-head is right than always saying the same, where 10 to 90 % of rows are right."""
    leads: list[float] = []
    for run in group.runs:
        if run.diverged or not run.has(Q_HEAD) or not run.has(exact_tag):
            continue
        _, i, j = np.intersect1d(run.series[Q_HEAD].steps, run.series[exact_tag].steps, return_indices=True)
        right, head = run.series[exact_tag].values[j], run.series[Q_HEAD].values[i]
        middle = (right > 0.1) & (right < 0.9)
        leads += list((head - np.maximum(right, 1 - right))[middle])
    return float(np.mean(leads)) if leads else None
