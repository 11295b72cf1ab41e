"""Runs of one configuration that differ in the seed only, one value per seed of each."""

import fnmatch
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trm_jax.comparison.config import Identity, flat
from trm_jax.comparison.runs import Run
from trm_jax.comparison.statistics import Seeds, first_at
from trm_jax.comparison.thresholds import THRESHOLDS

# What a run is still the same configuration with: when it logs, saves and evaluates, and how the same is computed.
NOT_LEARNT = ("train.seed", "train.max_steps", "train.eval_interval", "train.log_every_steps", "train.stall_minutes",
              "train.microbatches", "eval.*", "checkpoint.*", "data.max_eval_groups", "arch.forward_dtype",
              "arch.remat", "arch.attention")


@dataclass(frozen=True, eq=False)
class Group:
    """One configuration with all its seeds."""

    label: str
    runs: tuple[Run, ...]

    @property
    def mode(self) -> str:
        return self.runs[0].mode

    @property
    def identity(self) -> Identity:
        return self.runs[0].identity

    @property
    def seeds(self) -> list[int]:
        """In order; runs that repeat a seed are no independent evidence."""
        return sorted({run.seed for run in self.runs})

    @property
    def unfinished(self) -> list[Run]:
        return [run for run in self.runs if run.is_unfinished]

    @property
    def all_diverged(self) -> bool:
        return all(run.diverged for run in self.runs)

    def has(self, tag: str) -> bool:
        """Every seed that has come to its end without diverging has logged it."""
        sound = [run for run in self.runs if not run.diverged]
        return bool(sound) and all(run.has(tag) for run in sound)

    def has_axis(self, axis: str) -> bool:
        return all(axis in run.axes for run in self.runs)

    def per_seed(self, value: Callable[[Run], float]) -> Seeds:
        """Seed → value, the mean of the runs that repeat it."""
        return {seed: float(np.mean([value(run) for run in self.runs if run.seed == seed])) for seed in self.seeds}

    def final(self, tag: str, of_diverged: float = np.nan) -> Seeds:
        """Mean over the last tenth of every run; a seed that diverged has `of_diverged`."""
        return self.per_seed(lambda run: of_diverged if run.diverged or not run.has(tag) else
                             float(run.series[tag].last_part().mean()))

    def reach(self, tag: str, level: float, axis: str) -> Seeds:
        """Where on `axis` each seed's curve is first at `level`; infinity for never, and for one that diverged."""
        def time(run: Run) -> float:
            if run.diverged or not run.has(tag):
                return np.inf
            step = first_at(run.series[tag].steps, run.series[tag].values, level)
            return run.axes[axis](step) if np.isfinite(step) else np.inf

        return self.per_seed(time)

    def until(self, axis: str, x: float) -> "Group":
        """The group as it was at `x` on `axis`."""
        return replace(self, runs=tuple(run.until(run.axes[axis].step_at(x)) for run in self.runs))

    def ends(self, axis: str) -> list[float]:
        """How long each run is; one that diverged is as long as it would have been."""
        return [run.end(axis) for run in self.runs if not run.diverged]


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups the runs whose configurations are equal in all that is learnt from; a run without one stays alone."""
    members: dict[str, list[Run]] = {}
    for index, run in enumerate(runs):
        members.setdefault(_key(run) or f"run {index}", []).append(run)
    groups = [sorted(group, key=lambda run: run.seed) for group in members.values()]
    labels = [_shared_label([run.label for run in group]) for group in groups]
    return [Group(label if labels.count(label) == 1 else group[0].label, tuple(group))
            for label, group in zip(labels, groups, strict=True)]


def equally_long(axis: str, *groups: Group) -> bool:
    """Whether all runs of the groups end at about the same value of an axis that they have."""
    ends = [end for group in groups for end in group.ends(axis)]
    return not ends or max(ends) <= (1 + THRESHOLDS.length_tolerance) * min(ends)


def learnt_from(run: Run) -> dict[str, object]:
    """The settings that tell configurations apart, and the tasks."""
    fields = {name: value for name, value in flat(run.config).items()
              if not any(fnmatch.fnmatchcase(name, pattern) for pattern in NOT_LEARNT)}
    return fields | {"mode.name": run.mode} | ({"tasks": run.identity.digest} if run.identity.digest else {})


def _key(run: Run) -> str:
    return json.dumps(learnt_from(run), sort_keys=True, default=str) if run.config else ""


def _shared_label(labels: list[str]) -> str:
    """`o1` for o1_seed0 and o1_seed1, or for o1 and o1_seed1."""
    stems = {re.sub(r"[-_. ]*(seed|s)[-_. ]*\d+$", "", label) for label in labels}
    return stems.pop() if len(stems) == 1 and len(labels) > 1 else labels[0]
