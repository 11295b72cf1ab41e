"""The decision tree of the experiment plan: which runs come next, as data; `command` turns one into words of a shell.

O1 and L1 → original better: O2, O3 (exploration) → E series (encoders) with the best of the mode that won
          → online better:   L2, L3 (ACT steps)   ↗
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trm_jax.comparison.criteria import Finding
from trm_jax.comparison.groups import Group
from trm_jax.comparison.runs import E_SERIES, ONLINE, ORIGINAL, VARIED, Run
from trm_jax.comparison.statistics import Standing
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.wording import listed, number, percent, seeds
from trm_jax.metric_table import PASS_2

BASELINES = {ORIGINAL: "o1", ONLINE: "l1"}
BRANCHES = {ORIGINAL: ("o2", "o3"), ONLINE: ("l2", "l3")}
BRANCH_MEANINGS = {ORIGINAL: "how much exploration suits it", ONLINE: "how many ACT steps suit it"}
DECIDING = (*VARIED, "encoder.type", "encoder.num_layers", "encoder.set_layers", "encoder.norm_style")
LAUNCHER = ["./launch.sh"] if (Path(__file__).parents[2] / "launch.sh").is_file() else ["trm_jax", "train"]


@dataclass(frozen=True)
class PlannedRun:
    """A run to start, or to go on with, in its folder."""

    preset: str
    size: str
    seed: int
    overrides: Mapping[str, Any]  # "section.field" → value
    workdir: str


@dataclass(frozen=True)
class NextStep:
    what: str
    runs: Sequence[PlannedRun] = ()
    is_end: bool = False  # of the plan


def command(run: PlannedRun) -> list[str]:
    """What starts a run: launch.sh in a checkout, the package's own command where it was installed."""
    return [*LAUNCHER, *arguments(run)]


def arguments(run: PlannedRun) -> list[str]:
    """What training is given for a run."""
    overrides = {name: value for name, value in run.overrides.items() if name != "train.seed"}
    overrides |= {"train.seed": run.seed} if run.seed else {}
    texts = {name: str(tuple(value)).replace(" ", "") if isinstance(value, list | tuple) else str(value)
             for name, value in overrides.items()}  # JSON turned tuples into lists
    return [f"--config=configs/{run.preset}.py{':' + run.size if run.size else ''}", f"--workdir={run.workdir}",
            *(f"--config.{name}={text}" for name, text in texts.items())]


def folder_name(preset: str, size: str, seed: int) -> str:
    """What the folder of a run is called: `o2` or, at another size and seed than the usual, `o2-tiny_seed1`."""
    return f"{preset}{'-' + size if size else ''}{f'_seed{seed}' if seed else ''}"


def next_step(answer: str, lean: str, groups: Sequence[Group], bases: Mapping[str, Group], others: Sequence[Finding],
              max_seeds: int | None = None) -> NextStep:
    """What to run next, after `answer` (original, online, tie, undecided) about `groups`.

    Args:
        lean: the mode that is followed where the answer is none and there are `max_seeds` of a baseline.
        bases: mode → the group that stands for it.
        others: the final accuracy of all other groups against them.
    """
    for mode in BASELINES.keys() - bases.keys():
        (present,) = bases.values()
        return NextStep(f"There is no run of the {mode} mode: run {BASELINES[mode].upper()}.",
                        _beside(present, BASELINES[mode], _carried(present), present.seeds))
    if unfinished := _to_finish(bases.values()):
        where = listed([f"{run.label} ({percent(run.progress)} done)" for run in unfinished])
        return NextStep(f"Finish {where}: the command it was started with goes on from the last checkpoint.",
                        [_again(run) for run in unfinished])
    found = f"{bases[answer].label} is better" if answer in bases else ""
    count = min(len(base.seeds) for base in bases.values())
    if not found or count < THRESHOLDS.branch_seeds:
        if max_seeds is None or count < max_seeds or not lean:
            return _more_seeds(answer, bases, max_seeds or THRESHOLDS.plan_seeds)
        answer, found = lean, found or (f"Nothing tells them apart with {seeds(count)}; this is no finding, but the "
                                        f"numbers lean to {bases[lean].label}")
    base, ours = bases[answer], [group for group in groups if group.mode == answer]
    above = {finding.subject: finding.difference.value for finding in others
             if finding.against == base.label and finding.standing == Standing.BETTER and finding.difference}
    rivals = [group for group in ours if group.label in above and group.identity.preset[:1] in ("o", "l")]
    best = max(rivals, key=lambda group: above[group.label], default=base)
    ends = {group.label: float(np.mean(list(group.final(group.exact, 0.0).values()))) for group in ours
            if group.identity.preset in E_SERIES}
    ranking = ", ".join(f"{label} {number(ends[label])}" for label in sorted(ends, key=lambda label: -ends[label]))
    return (_stage(f"{found}: find out {BRANCH_MEANINGS[answer]}", BRANCHES[answer], ours, base, {}, base.seeds)
            or _stage(f"{best.label} is the best of its mode: compare encoders under it", E_SERIES, ours, best,
                      _training_of(best), base.seeds)
            or NextStep(f"The plan is done. Encoders by final exact accuracy: {ranking}.", is_end=True))


def _more_seeds(answer: str, bases: Mapping[str, Group], at_least: int) -> NextStep:
    """Seeds that turn a tie, an open question or a provisional answer into one that stands; the same of both modes."""
    if not any(base.sound for base in bases.values()):
        return NextStep("Every run diverged: look at gradient norm and learning rate; more seeds would tell nothing.")
    there = sorted({seed for base in bases.values() for seed in base.seeds})
    lacking = any(set(there) - set(base.seeds) for base in bases.values())
    count = max(min(THRESHOLDS.plan_seeds, at_least), len(there) + (not lacking))
    wanted = sorted([*there, *(seed for seed in range(count) if seed not in there)][:count])
    why = {"tie": "The plan has no branch for a tie: settle it with more seeds",
           "undecided": "Add seeds of both and compare again"}.get(answer, "One seed names no branch: add seeds")
    return NextStep(f"{why} ({', '.join(f'{base.label} has {len(base.seeds)}' for base in bases.values())}).", [
        run for mode, base in bases.items() for run in _beside(
            base, base.identity.preset or BASELINES[mode], base.identity.overrides, set(wanted) - set(base.seeds))])


def _stage(why: str, presets: Iterable[str], groups: Sequence[Group], base: Group, overrides: Mapping[str, Any],
           seeds: Sequence[int]) -> NextStep | None:
    """The presets that are not among `groups` with the first of the seeds, or not finished there; None for none."""
    runs: list[PlannedRun] = []
    for preset in presets:
        there = [group for group in groups if group.identity.preset == preset]
        runs += map(_again, _to_finish([*there, base]))
        runs += _beside(base, preset, {**_carried(base), **overrides}, set(seeds[:THRESHOLDS.plan_seeds]).difference(
            *(group.seeds for group in there)))
    names = listed([preset.upper() for preset in dict.fromkeys(run.preset for run in runs)])
    return NextStep(f"{why} with {names}.", runs) if runs else None


def _beside(base: Group, preset: str, overrides: Mapping[str, Any], seeds: Iterable[int]) -> list[PlannedRun]:
    """Runs of `preset` in folders beside those of `base`, at their size."""
    size, home = base.identity.size, base.runs[0].path.parent
    return [PlannedRun(preset, size, seed, dict(overrides), str(home / folder_name(preset, size, seed)))
            for seed in sorted(seeds)]


def _to_finish(groups: Iterable[Group]) -> list[Run]:
    """The runs that training has not brought to their ends, which are scored where any of the groups is."""
    runs = [run for group in groups for run in group.runs]
    scores = any(run.has(PASS_2) for run in runs)
    return [run for run in runs if run.is_unfinished or (
        scores and run.identity.is_recorded and not run.is_scored and not run.diverged)]


def _again(run: Run) -> PlannedRun:
    """The same run once more, which goes on where it stands; what had stopped it early is left out."""
    overrides = {name: value for name, value in run.identity.overrides.items() if name != "train.max_steps"}
    return PlannedRun(run.identity.preset or BASELINES[run.mode], run.identity.size, run.seed, overrides, str(run.path))


def _carried(group: Group) -> dict[str, Any]:
    """What a group was given besides its preset, without what presets vary: every other run gets it too."""
    own = (*VARIED, "encoder.") if group.identity.preset[:1] == "e" else VARIED
    return {name: value for name, value in group.identity.overrides.items() if not name.startswith(own)}


def _training_of(best: Group) -> dict[str, Any]:
    """The settings that make an E preset, which is of the original dynamics as O1 is, train as the winner did."""
    if best.mode == ORIGINAL:
        found, names = {}, ["arch.halt_exploration_prob"] if best.identity.preset != BASELINES[ORIGINAL] else []
    else:
        found, names = {"mode.name": ONLINE, "mode.encode": "every_step"}, ["mode.num_act_steps"]
        if best.identity.size:  # small online presets make the same number of updates in fewer epochs
            names += ["train.epochs", "train.eval_interval", "train.log_every_steps"]
    return found | {name: best.setting(name) for name in names if best.setting(name) is not None}
