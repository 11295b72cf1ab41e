"""The experiment plan: its presets, its decision tree, and the commands of the next step.

O1 and L1  →  original better: O2, O3 (exploration)  →  E series with the best of the mode that won
              online better:   L2, L3 (ACT steps)    ↗
"""

import re
from dataclasses import dataclass

from trm_jax.comparison.contests import (
    ACCURACY_MARGIN,
    MIN_PROGRESS,
    ONE_SEED_FLOOR,
    ONLINE,
    ORIGINAL,
    difference,
    leader,
)
from trm_jax.comparison.groups import Group
from trm_jax.comparison.runs import Run
from trm_jax.comparison.wording import listed, number, percent

TIE = "tie"
_ONCE = {"encoder.type": "standard", "mode.name": "original", "mode.encode": "once"}
_ONLINE = {"encoder.type": "standard", "mode.name": "online"}
PRESETS = {  # what makes a configuration a preset of the plan
    "o1": {**_ONCE, "arch.halt_exploration_prob": 0.5},
    "o2": {**_ONCE, "arch.halt_exploration_prob": 0.3},
    "o3": {**_ONCE, "arch.halt_exploration_prob": 0.7},
    "r1": {**_ONCE, "mode.encode": "every_step"},
    "l1": {**_ONLINE, "mode.num_act_steps": 4},
    "l2": {**_ONLINE, "mode.num_act_steps": 8},
    "l3": {**_ONLINE, "mode.num_act_steps": 16},
    "e1": {"encoder.type": "hybrid_standard"},
    "e2": {"encoder.type": "hybrid_variational"},
    "e3": {"encoder.type": "lpn_variational"},
}
BASELINES = {ORIGINAL: "o1", ONLINE: "l1"}
BRANCHES = {ORIGINAL: ("o2", "o3"), ONLINE: ("l2", "l3")}
E_SERIES = ("e1", "e2", "e3")
E_DEFAULTS = {  # the mode of the E presets as they stand in configs/, and its settings that a winner may change
    "mode.name": "original",
    "mode.encode": "once",
    "arch.halt_exploration_prob": 0.5,
}
MODE_SETTINGS = {  # what an E run takes over from the best run of each mode
    ORIGINAL: ("mode.encode", "arch.halt_exploration_prob"),
    ONLINE: ("mode.name", "mode.num_act_steps"),
}


@dataclass(frozen=True)
class NextStep:
    what: str
    commands: tuple[str, ...] = ()


def preset(group: Group) -> str | None:
    """The plan's name of a group: by its configuration or, without one, by the start of its label (`o2`, `L1_run`)."""
    if group.runs[0].config is not None:
        names = (
            name
            for name, settings in PRESETS.items()
            if all(group.setting(setting) == value for setting, value in settings.items())
        )
        return next(names, None)
    match = re.match(r"([olre][1-3])(?!\d)", group.label.lower())
    name = match.group(1) if match else None
    return name if name in PRESETS and PRESETS[name].get("mode.name", group.mode) == group.mode else None


def series_letter(group: Group) -> str:
    """O, L, R or E, the series of the plan a group belongs to."""
    encoder = group.setting("encoder.type")
    name = preset(group)
    if (encoder or "standard") != "standard" or name in E_SERIES:
        return "E"
    if group.mode == ONLINE:
        return "L"
    return "R" if group.setting("mode.encode") == "every_step" or name == "r1" else "O"


def baseline(groups: list[Group], mode: str) -> Group | None:
    """The group that stands for a mode: its control of the plan, or else the first of its own series."""
    order = {ORIGINAL: "ORE", ONLINE: "LE"}[mode]
    ours = sorted(
        (group for group in groups if group.mode == mode), key=lambda g: order.index(series_letter(g))
    )
    return next((group for group in ours if preset(group) == BASELINES[mode]), ours[0] if ours else None)


def next_step(answer: str, groups: list[Group]) -> NextStep:
    """What to run next, after `answer` (original, online, tie, undecided) about `groups`."""
    for mode, name in BASELINES.items():
        if baseline(groups, mode) is None:
            return NextStep(f"There is no run of the {mode} mode: run {name.upper()}.", (launch(name),))
    if answer not in (ORIGINAL, ONLINE):
        return _settle(answer, groups)
    there = {preset(group) for group in groups}
    missing = [name for name in BRANCHES[answer] if name not in there]
    if missing:
        what = {ORIGINAL: "exploration", ONLINE: "more ACT steps"}[answer]
        names = listed([name.upper() for name in missing])
        return NextStep(
            f"{_baseline_name(groups, answer)} won: explore {what} with {names}.", _launch_all(missing)
        )
    best = best_of(groups, answer)
    missing = [name for name in E_SERIES if name not in there]
    if missing:
        overrides = mode_overrides(best, answer)
        names = listed([name.upper() for name in missing])
        return NextStep(
            f"{best.label} is the best of its mode: compare encoders under it with {names}.",
            _launch_all(missing, overrides),
        )
    return _finished(groups)


def best_of(groups: list[Group], mode: str) -> Group:
    """The mode's baseline, or the group of the mode that beats it most clearly in final train accuracy."""
    best = base = baseline(groups, mode)
    for group in groups:
        if (
            group.mode != mode
            or series_letter(group) == "E"
            or not all(g.has("train/accuracy") for g in (group, base))
        ):
            continue
        ours, theirs, top = (g.final("train/accuracy") for g in (group, base, best))
        if (
            leader(difference(ours, theirs, ONE_SEED_FLOOR), ACCURACY_MARGIN) == ORIGINAL
            and ours.mean > top.mean
        ):
            best = group
    return best


def mode_overrides(best: Group, mode: str) -> str:
    """The flags that make an E preset train as `best` did, where that is not its default."""
    settings = {name: best.setting(name) for name in MODE_SETTINGS[mode]}
    if mode == ONLINE:
        settings["mode.name"] = ONLINE
    changed = {name: v for name, v in settings.items() if v is not None and v != E_DEFAULTS.get(name)}
    return "".join(f" --config.{name}={value}" for name, value in changed.items())


def launch(name: str, overrides: str = "", folder: str = "") -> str:
    return f"./launch.sh --config=configs/{name}.py --workdir={folder or f'runs/{name}'}{overrides}"


def _launch_all(names: list[str], overrides: str = "") -> tuple[str, ...]:
    return tuple(launch(name, overrides) for name in names)


def _baseline_name(groups: list[Group], mode: str) -> str:
    return baseline(groups, mode).label


def _settle(answer: str, groups: list[Group]) -> NextStep:
    """What would turn a tie or an open question into an answer: finish what is unfinished, else add seeds."""
    pair = [baseline(groups, mode) for mode in BASELINES]
    names = [preset(group) or BASELINES[group.mode] for group in pair]
    unfinished = [
        (run, name)
        for group, name in zip(pair, names, strict=True)
        for run in group.runs
        if run.progress is not None and run.progress < MIN_PROGRESS
    ]
    if unfinished:
        where = listed([f"{run.label} ({percent(run.progress)} done)" for run, _ in unfinished])
        what = f"Finish {where}: the same command as before goes on from the last checkpoint."
        return NextStep(what, tuple(launch(name, folder=str(run.path)) for run, name in unfinished))
    commands = tuple(_another_seed(group, name) for group, name in zip(pair, names, strict=True))
    if answer == TIE:
        cheaper = _cheaper(pair)
        what = "The plan has no branch for a tie: another seed of each settles it"
        return NextStep(f"{what}, or else go on with the cheaper mode{cheaper}.", commands)
    return NextStep("Add a seed of each, with the overrides of the runs so far, and compare again.", commands)


def _another_seed(group: Group, name: str) -> str:
    seeds = [run.setting("train.seed") for run in group.runs]
    seed = max((seed for seed in seeds if seed is not None), default=len(seeds) - 1) + 1
    return launch(name, f" --config.train.seed={seed}", f"runs/{name}_seed{seed}")


def _cheaper(pair: list[Group]) -> str:
    if not all(group.has_axis("hours") for group in pair):
        return ""
    hours = {group.label: _mean_end(group.runs, "hours") for group in pair}
    label = min(hours, key=hours.get)
    return (
        f", {label} ({' against '.join(f'{number(hours[name])} h' for name in sorted(hours, key=hours.get))})"
    )


def _mean_end(runs: tuple[Run, ...], axis: str) -> float:
    return sum(run.end[axis] for run in runs) / len(runs)


def _finished(groups: list[Group]) -> NextStep:
    scores = {
        group.label: group.final("train/accuracy").mean
        for group in groups
        if series_letter(group) == "E" and group.has("train/accuracy")
    }
    ranking = ", ".join(
        f"{label} {number(scores[label])}" for label in sorted(scores, key=scores.get, reverse=True)
    )
    return NextStep(f"The plan is done. Encoders by final train accuracy: {ranking or 'not logged'}.")
