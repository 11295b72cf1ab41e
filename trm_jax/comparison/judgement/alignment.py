"""Where the final values of runs are compared: at their ends if these are equally far, or else at the nearest."""

from dataclasses import dataclass

from trm_jax.comparison.record.groups import Group
from trm_jax.comparison.wording import listed, number

END_AXES = ("epochs", "updates")  # the plan compares by epochs; updates where runs differ in these, or in both
LENGTH_TOLERANCE = 0.1  # runs whose lengths differ by no more are equally long


@dataclass(frozen=True)
class Alignment:
    """A place on an axis that several groups have in common."""

    axis: str = ""  # "" where they have none
    x: float = 0.0
    cut: tuple[str, ...] = ()  # labels of the groups that go on beyond it
    reason: str = ""  # why final values cannot be compared there; "" if they can

    def __str__(self) -> str:
        return f"at {number(self.x)} {self.axis} each" if self.axis else ""


def align(*groups: Group) -> tuple[list[Group], Alignment]:
    """The groups as they are to be compared, and where that is.

    Runs that are equally long, in epochs or else in updates, are compared at their ends. Others are cut where
    the shortest ends. A run whose learning rate comes down towards its end is not itself when it is cut.
    """
    shared = [axis for axis in END_AXES if all(group.has_axis(axis) for group in groups)]
    if not shared:
        return list(groups), Alignment(reason=_nothing_shared(groups))
    for axis in shared:
        if is_equal(axis, *groups):
            return list(groups), Alignment(axis, min(_ends(axis, *groups)))
    axis = shared[0]
    x = min(_ends(axis, *groups))
    longer = [group for group in groups if max(_ends(axis, group)) > (1 + LENGTH_TOLERANCE) * x]
    annealed = [group.label for group in longer if _is_annealed(group)]
    reason = ""
    if annealed:
        reason = f"{listed(annealed)} would be cut at {number(x)} {axis}, before its learning rate has come down"
    cut = tuple(group.label for group in longer)
    return [group.until(axis, x) for group in groups], Alignment(axis, x, cut, reason)


def is_equal(axis: str, *groups: Group) -> bool:
    """Whether all runs of the groups end at about the same value of an axis that they have."""
    ends = _ends(axis, *groups)
    return max(ends) <= (1 + LENGTH_TOLERANCE) * min(ends)


def _ends(axis: str, *groups: Group) -> list[float]:
    return [run.end[axis] for group in groups for run in group.runs]


def _is_annealed(group: Group) -> bool:
    ratio = group.setting("optim.lr_min_ratio")
    return ratio is not None and ratio < 1


def _nothing_shared(groups: tuple[Group, ...]) -> str:
    """Of every group the first axis that it lacks, and why."""
    lacks = [
        f"the {axis} of {group.label} are not known ({run.missing_axes[axis]})"
        for group in groups
        for axis, run in [(axis, run) for axis in END_AXES for run in group.runs if axis in run.missing_axes][:1]
    ]
    return f"there is no axis to lay the runs' ends over each other: {listed(lacks)}"
