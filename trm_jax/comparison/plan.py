"""The decision tree of the experiment plan: what to run next, with the commands.

O1 and L1 → original better: O2, O3 (exploration) → E series (encoders) with the best of the mode that won
          → online better:   L2, L3 (ACT steps)   ↗
"""

from dataclasses import dataclass

from trm_jax.comparison.contests import ONLINE, ORIGINAL
from trm_jax.comparison.groups import Group
from trm_jax.comparison.presets import BASELINES, E_SERIES, baseline, best_of, preset_of, series_of
from trm_jax.comparison.wording import listed, number, percent

TIE = "tie"
BRANCHES = {ORIGINAL: ("o2", "o3"), ONLINE: ("l2", "l3")}
BRANCH_MEANINGS = {ORIGINAL: "how much exploration suits it", ONLINE: "how many ACT steps suit it"}
E_DEFAULTS = {  # how the E presets train as they stand in configs/
    "mode.name": "original",
    "mode.encode": "once",
    "arch.halt_exploration_prob": 0.5,
}
MODE_SETTINGS = {  # what an E run takes over from the best run of the mode that won
    ORIGINAL: ("mode.name", "mode.encode", "arch.halt_exploration_prob"),
    ONLINE: ("mode.name", "mode.encode", "mode.num_act_steps"),
}


@dataclass(frozen=True)
class NextStep:
    what: str
    commands: tuple[str, ...] = ()


def next_step(answer: str, groups: list[Group]) -> NextStep:
    """What to run next, after `answer` (original, online, tie, undecided) about `groups`."""
    pair = {}
    for mode, name in BASELINES.items():
        base = baseline(groups, mode)
        if base is None:
            return NextStep(f"There is no run of the {mode} mode: run {name.upper()}.", (_launch(name),))
        pair[mode] = base
    if answer not in pair:
        return _settle(answer, list(pair.values()))

    base = pair[answer]
    there = {preset_of(group) for group in groups if group.mode == answer}
    missing = [name for name in BRANCHES[answer] if name not in there]
    if missing:
        names = listed([name.upper() for name in missing])
        what = f"{base.label} won: find out {BRANCH_MEANINGS[answer]} with {names}."
        return NextStep(what, tuple(map(_launch, missing)))
    missing = [name for name in E_SERIES if name not in there]
    if missing:
        names, best = listed([name.upper() for name in missing]), best_of(groups, base)
        what = f"{best.label} is the best of its mode: compare encoders under it with {names}."
        return NextStep(what, tuple(_launch(name, _overrides(best)) for name in missing))
    return NextStep(f"The plan is done. Encoders by final train accuracy: {_ranking(groups, answer)}.")


def _overrides(best: Group) -> str:
    """The flags that make an E preset train as `best` did, where that is not its default."""
    settings = {name: best.setting(name) for name in MODE_SETTINGS[best.mode]} | {"mode.name": best.mode}
    changed = {name: v for name, v in settings.items() if v is not None and v != E_DEFAULTS.get(name)}
    return "".join(f" --config.{name}={value}" for name, value in changed.items())


def _launch(name: str, overrides: str = "", folder: str = "") -> str:
    return f"./launch.sh --config=configs/{name}.py --workdir={folder or f'runs/{name}'}{overrides}"


def _settle(answer: str, pair: list[Group]) -> NextStep:
    """What would turn a tie or an open question into an answer: finish what is unfinished, else add seeds."""
    names = [preset_of(group) or BASELINES[group.mode] for group in pair]
    named = zip(pair, names, strict=True)
    unfinished = [(run, name) for group, name in named for run in group.runs if run.is_unfinished]
    if unfinished:
        where = listed([f"{run.label} ({percent(run.progress or 0)} done)" for run, _ in unfinished])
        what = f"Finish {where}: the command it was started with goes on from the last checkpoint."
        return NextStep(what, tuple(_launch(name, folder=str(run.path)) for run, name in unfinished))

    commands = tuple(_another_seed(group, name) for group, name in zip(pair, names, strict=True))
    diverged = [group.label for group in pair if group.diverged]
    if diverged:
        what = f"{listed(diverged)} diverged: look at gradient norm and learning rate, then run another seed."
    elif answer == TIE:
        what = (
            f"The plan has no branch for a tie: settle it with another seed of each{_or_the_cheaper(pair)}."
        )
    else:
        what = "Add a seed of each, with the overrides of the runs so far, and compare again."
    return NextStep(what, commands)


def _another_seed(group: Group, name: str) -> str:
    known = [seed for run in group.runs if (seed := run.setting("train.seed")) is not None]
    seed = max(known, default=0) + 1
    return _launch(name, f" --config.train.seed={seed}", f"runs/{name}_seed{seed}")


def _or_the_cheaper(pair: list[Group]) -> str:
    if not all(group.has_axis("hours") for group in pair):
        return ""
    hours = {group.label: sum(run.end["hours"] for run in group.runs) / group.seeds for group in pair}
    cheap, dear = sorted(hours, key=lambda label: hours[label])
    return f", or go on with the cheaper {cheap} ({number(hours[cheap])} hours, {dear} {number(hours[dear])})"


def _ranking(groups: list[Group], mode: str) -> str:
    tag = "train/accuracy"
    encoders = [
        group for group in groups if group.mode == mode and series_of(group) == "E" and group.has(tag)
    ]
    encoders.sort(key=lambda group: group.final(tag).mean, reverse=True)
    return ", ".join(f"{group.label} {number(group.final(tag).mean)}" for group in encoders) or "not logged"
