"""Runs of one configuration that differ in the seed only, one value per seed of each."""

import json
import re
from collections.abc import Callable, Sequence

import numpy as np

from trm_jax.comparison.runs import Run
from trm_jax.comparison.statistics import Seeds, first_at
from trm_jax.comparison.thresholds import THRESHOLDS

# What a run is still the same configuration with: when it logs, saves and evaluates, and how the same is computed.
NOT_LEARNT = re.compile(
    r"eval\.|checkpoint\.|data\.max_eval_groups$|arch\.(forward_dtype|remat|attention)$|"
    r"train\.(seed|max_steps|eval_interval|log_every_steps|stall_minutes|microbatches)$")


class Group:
    """One configuration with all its seeds."""

    def __init__(self, label: str, runs: Sequence[Run]):
        self.label, self.runs, self.setting = label, runs, runs[0].setting
        self.mode, self.identity = runs[0].mode, runs[0].identity
        self.seeds = sorted({run.seed for run in runs})  # runs that repeat one are no independent evidence
        self.sound = [run for run in runs if not run.diverged]
        self.unfinished = [run for run in runs if run.is_unfinished]

    def has(self, tag: str) -> bool:
        """Every seed that has come to its end without diverging has logged it."""
        return bool(self.sound) and all(run.has(tag) for run in self.sound)

    def has_axis(self, axis: str) -> bool:
        return all(axis in run.axes for run in self.runs)

    def ends(self, axis: str) -> list[float]:
        """How long each run is; one that diverged is as long as it would have been."""
        return [run.end(axis) for run in self.sound]

    def final(self, tag: str, of_diverged: float = np.nan, until: tuple[str, float] | None = None) -> Seeds:
        """Seed → mean over the last tenth of its run, or of that part of it which ends at a point on an axis."""
        def mean(run: Run) -> float:
            part = run.series[tag].last_part(np.interp(until[1], *run.axes[until[0]][::-1]) if until else np.inf)
            return float(part.mean()) if len(part) else np.nan

        return self._per_seed(tag, mean, of_diverged)

    def reach(self, tag: str, level: float, axis: str) -> Seeds:
        """Seed → where on an axis its curve is first at `level`; infinity for never, and for one that diverged."""
        def time(run: Run) -> float:
            step = first_at(run.series[tag].steps, run.series[tag].values, level)
            return float(np.interp(step, *run.axes[axis], right=np.inf))

        return self._per_seed(tag, time, np.inf)

    def _per_seed(self, tag: str, value: Callable[[Run], float], otherwise: float) -> Seeds:
        found = [(run.seed, otherwise if run.diverged or not run.has(tag) else value(run)) for run in self.runs]
        return {seed: float(np.mean([x for other, x in found if other == seed])) for seed in self.seeds}


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups the runs whose configurations are equal in all that is learnt from; a run without one stays alone."""
    members: dict[str, list[Run]] = {}
    for index, run in enumerate(runs):
        key = json.dumps(learnt_from(run), sort_keys=True, default=str) if run.config else f"run {index}"
        members.setdefault(key, []).append(run)
    groups, labels = [sorted(group, key=lambda run: run.seed) for group in members.values()], []
    for group in groups:  # `o1` for o1_seed0 and o1_seed1, or for o1 and o1_seed1
        stems = {re.sub(r"[-_. ]*(seed|s)[-_. ]*\d+$", "", run.label) for run in group}
        labels.append(stems.pop() if len(stems) == 1 and len(group) > 1 else group[0].label)
    return [Group(label if labels.count(label) == 1 else group[0].label, group)
            for label, group in zip(labels, groups, strict=True)]


def learnt_from(run: Run) -> dict[str, object]:
    """The settings that tell configurations apart, and the tasks."""
    fields = {f"{section}.{name}": value for section, values in run.config.items() for name, value in values.items()}
    fields = {name: value for name, value in fields.items() if not re.match(NOT_LEARNT, name)}
    return fields | {"mode.name": run.mode} | ({"tasks": run.identity.digest} if run.identity.digest else {})


def equally_long(axis: str, *groups: Group) -> bool:
    """Whether all runs of the groups end at about the same value of an axis that they have."""
    ends = [end for group in groups for end in group.ends(axis)]
    return max(ends, default=0.0) <= (1 + THRESHOLDS.length_tolerance) * min(ends, default=0.0)
