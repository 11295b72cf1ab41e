"""Runs of one configuration that differ in the seed only, one value per seed of each."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trm_jax.comparison.runs import Evaluation, Run
from trm_jax.comparison.statistics import Seeds, first_at
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.wording import percent
from trm_jax.metric_table import ANSWERED, EXACT, HALTED_STEPS, PASS_2, STEPS

# What a run is still the same configuration with: when it logs, saves and evaluates, and how the same is computed.
NOT_LEARNT = re.compile(
    r"eval\.|checkpoint\.|data\.max_eval_groups$|arch\.(forward_dtype|remat|attention)$|"
    r"train\.(seed|max_steps|eval_interval|log_every_steps|stall_minutes|microbatches)$")


@dataclass(frozen=True)
class Score:
    """Pass@2 of a group, as one kind of evaluation of every seed has it."""

    protocol: str  # held out, transductive or adapted
    tasks: int
    by_seed: Seeds
    by_task: Mapping[str, float]  # mean over the seeds; empty where not recorded


class Group:
    """One configuration with all its seeds."""

    def __init__(self, label: str, runs: Sequence[Run]):
        self.label, self.runs, self.setting = label, runs, runs[0].setting
        self.mode, self.identity, self.protocol = runs[0].mode, runs[0].identity, runs[0].protocol
        self.seeds = sorted({run.seed for run in runs})  # runs that repeat one are no independent evidence
        self.sound = [run for run in runs if not run.diverged]
        self.unfinished = [run for run in runs if run.is_unfinished]
        self.exact = next(filter(self.has, (ANSWERED, EXACT)), "")  # tag of its exact accuracy; "" for none
        self.steps = HALTED_STEPS if self.has(HALTED_STEPS) else STEPS  # tag of its ACT steps

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

    def scores(self, until: tuple[str, float] | None = None) -> dict[str, Score]:
        """Full evaluations of the last checkpoint by what they were, in words, and what training scored at its end as
        PASS_2, where a diverged seed solves nothing: what two groups must share to be compared."""
        latest: dict[str, dict[int, Evaluation]] = {}  # kind → seed → evaluation
        for run in self.sound:
            for evaluation in run.evaluations:
                if evaluation.step >= THRESHOLDS.min_progress * run.last_step:
                    latest.setdefault(evaluation.kind, {})[run.seed] = evaluation
        scores = {}
        for kind, side in latest.items():
            words = {evaluation.protocol or self.protocol for evaluation in side.values()}
            if side.keys() == {run.seed for run in self.sound} and len(words) == 1:
                shares = [evaluation.by_task for evaluation in side.values()]
                common = set.intersection(*map(set, shares))
                scores[kind] = Score(words.pop(), next(iter(side.values())).tasks,
                                     {seed: evaluation.score for seed, evaluation in side.items()},
                                     {task: float(np.mean([share[task] for share in shares])) for task in common})
        if self.has(PASS_2):
            final = {seed: float(np.nan_to_num(share)) for seed, share in self.final(PASS_2, 0.0, until).items()}
            scores[PASS_2] = Score(self.protocol, self.runs[0].eval_tasks, final, {})
        return scores

    def unready(self, tag: str) -> str:
        """Why its final values of `tag` decide nothing, in words; "" if they do."""
        if not self.sound:
            return f"{self.label} diverged"
        if not self.has(tag):
            return f"{self.label} did not log {tag}"
        short = any(len(run.series[tag].last_part()) < THRESHOLDS.min_final_points for run in self.sound)
        return next((f"{run.label} is at {percent(run.progress)} of its epochs" for run in self.unfinished),
                    f"{self.label} is too short: too few points of {tag} in its last tenth" if short else "")


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups the runs whose configurations are equal in all that is learnt from; a run without one stays alone."""
    members: dict[str, list[Run]] = {}
    for index, run in enumerate(runs):
        key = json.dumps(learnt_from(run), sort_keys=True, default=str) if run.config else f"run {index}"
        members.setdefault(key, []).append(run)
    groups = [sorted(group, key=lambda run: run.seed) for group in members.values()]
    stems = [re.sub(r"[-_. ]*(seed|s)[-_. ]*\d+$", "", group[0].label) for group in groups]  # `o1` of o1_seed1
    return [Group(stem if len(group) > 1 and stems.count(stem) == 1 else group[0].label, group)
            for stem, group in zip(stems, groups, strict=True)]


def learnt_from(run: Run) -> dict[str, object]:
    """The settings that tell configurations apart, and the tasks."""
    fields = {f"{section}.{name}": value for section, values in run.config.items() for name, value in values.items()}
    fields = {name: value for name, value in fields.items() if not re.match(NOT_LEARNT, name)}
    return fields | {"mode.name": run.mode} | ({"tasks": run.identity.digest} if run.identity.digest else {})


def equally_long(axis: str, *groups: Group) -> bool:
    """Whether all runs of the groups end at about the same value of an axis that they have."""
    ends = [end for group in groups for end in group.ends(axis)]
    return max(ends, default=0.0) <= (1 + THRESHOLDS.length_tolerance) * min(ends, default=0.0)
