"""Which mode needs fewer epochs to the same train accuracy.

Epochs decide, as the plan asks; updates, samples and hours stand beside them in the evidence. Times are
compared as ratios, so that differences here are of logarithms.
"""

from dataclasses import replace

import numpy as np

from trm_jax.comparison.judgement.contests import (
    EQUAL,
    ONE_SEED_FLOOR,
    ONLINE,
    ORIGINAL,
    UNDECIDED,
    Contest,
    Pair,
    obstacle,
)
from trm_jax.comparison.record.groups import Difference, Group, Standing, difference, estimate
from trm_jax.comparison.record.metrics import AXES, LEVELS
from trm_jax.comparison.wording import listed, number, percent

AXIS = "epochs"
SPEED_MARGIN = float(np.log(1 / 0.9))  # a tenth fewer epochs is faster
ONE_SEED_SPEED_FLOOR = float(np.log(1.5))  # where a side has one seed, a ratio is never known better than this
CROSSING_BAND = 0.01  # accuracy: a curve crosses a level between this much below and this much above it
LEADERS = {  # of the standing of the original mode's time to the online one's: less is better
    Standing.ABOVE: ONLINE,
    Standing.BELOW: ORIGINAL,
    Standing.EQUAL: EQUAL,
    Standing.UNDECIDED: UNDECIDED,
}


def speed(pair: Pair) -> Contest:
    """The highest level that is clear decides, unless a lower one clearly says the opposite."""
    contest = Contest(
        "Fewer epochs to the same train accuracy", "at least a tenth fewer, and by more than the noise"
    )
    problem = _obstacle(pair)
    if problem:
        return replace(contest, reason=problem)
    gaps = {level: gap for level in LEVELS if (gap := _gap(pair, level)) is not None}
    if not gaps:
        levels = listed([percent(level) for level in LEVELS])
        return replace(
            contest, reason=f"none of the levels {levels} is crossed in a way that tells them apart"
        )

    leaders = {level: LEADERS[gap.standing(SPEED_MARGIN)] for level, gap in gaps.items()}
    decided = {level: leader for level, leader in leaders.items() if leader != UNDECIDED}
    level = max(decided or leaders)
    contest = replace(contest, evidence=_evidence(pair, level), difference=gaps[level])
    if not decided:
        return replace(contest, reason="the difference is smaller than its noise")
    if {ORIGINAL, ONLINE} <= set(decided.values()):
        firsts = ", ".join(f"{percent(level)}: {leader}" for level, leader in decided.items())
        return replace(contest, reason=f"the levels disagree ({firsts})")
    return replace(contest, leader=decided[level])


def _obstacle(pair: Pair) -> str:
    """Why there are no times to compare; '' if there are. An unfinished run may well have crossed a level."""
    for group in pair.groups:
        if group.diverged or not group.has("train/accuracy"):
            return obstacle("train/accuracy", group)
        if not group.has_axis(AXIS):
            why = next(run.missing_axes[AXIS] for run in group.runs if AXIS in run.missing_axes)
            return f"the epochs of {group.label} are not known: {why}"
    return ""


def _gap(pair: Pair, level: float) -> Difference | None:
    """log(original mode's time / online mode's time) to `level`; None where the level says nothing."""
    original, online = (group.reach(level, AXIS, pair.window_steps) for group in pair.groups)
    if np.isfinite(original).all() and np.isfinite(online).all():
        if all(_starts_above(group, level, pair.window_steps) for group in pair.groups):
            return None
        return difference(
            estimate(np.log(original), _log_time_spread(pair.original, level, pair.window_steps)),
            estimate(np.log(online), _log_time_spread(pair.online, level, pair.window_steps)),
            ONE_SEED_SPEED_FLOOR,
        )
    has_one_seed = min(group.seeds for group in pair.groups) == 1
    band, noise = (ONE_SEED_FLOOR, ONE_SEED_SPEED_FLOOR) if has_one_seed else (CROSSING_BAND, 0.0)
    if np.isfinite(original).all():
        lead = -_head_start(original, pair.online, level - band, pair.window_steps)
    else:
        lead = _head_start(online, pair.original, level - band, pair.window_steps)
    return Difference(lead, noise) if lead else None


def _head_start(times: np.ndarray, slower: Group, below: float, window_steps: float) -> float:
    """By how much the faster mode, there at `times`, leads one that stays under `below` to its end.

    That is at least log(end of the slower / last time of the faster); 0 where this is too little to tell.
    """
    if not np.isfinite(times).all() or np.isfinite(slower.reach(below, AXIS, window_steps)).any():
        return 0.0
    lead = float(np.log(min(run.end[AXIS] for run in slower.runs) / times.max()))
    return lead if lead > SPEED_MARGIN else 0.0


def _starts_above(group: Group, level: float, window_steps: float) -> bool:
    return all(run.series["train/accuracy"].smoothed(window_steps).values[0] >= level for run in group.runs)


def _log_time_spread(group: Group, level: float, window_steps: float) -> float:
    """How uncertain the time of a group's first seed is.

    A quarter of the log of the span in which its curve crosses the band level ± CROSSING_BAND: a standard
    deviation, if that span is taken for an interval of two to either side. A span is never shorter than what
    lies between two points, and reaches back no further than to half the time itself.
    """
    run = group.runs[0]
    curve = run.series["train/accuracy"].smoothed(window_steps)
    step, early = curve.first_reaches(level), curve.first_reaches(level - CROSSING_BAND)
    late = min(curve.first_reaches(level + CROSSING_BAND), run.last_step)
    half = curve.spacing_steps / 2
    time, low, high = run.axes[AXIS](np.array([step, min(early, step - half), max(late, step + half)]))
    return float(np.log(high / max(low, time / 2)) / 4)


def _evidence(pair: Pair, level: float) -> str:
    """The times of both modes on every axis they share, the one that decides first."""
    lines = []
    for axis in (AXIS, *(axis for axis in AXES if axis != AXIS)):
        if all(group.has_axis(axis) for group in pair.groups):
            sides = ", ".join(
                f"{group.label} {_mean_time(group, level, axis, pair)}" for group in pair.groups
            )
            lines.append(f"{AXES[axis]}: {sides}")
    return f"to {percent(level)} in {'; '.join(lines)}"


def _mean_time(group: Group, level: float, axis: str, pair: Pair) -> str:
    time = float(np.mean(group.reach(level, axis, pair.window_steps)))
    return number(time) if np.isfinite(time) else "never"
