"""The decision tree of the experiment plan: what to run next, with the commands.

O1 and L1 → original better: O2, O3 (exploration) → E series (encoders) with the best of the mode that won
          → online better:   L2, L3 (ACT steps)   ↗
"""

from collections.abc import Sequence
from dataclasses import dataclass

from trm_jax.comparison.judgement.commands import another_seed, finishing, first_trained, to_finish, variation
from trm_jax.comparison.judgement.contests import ONLINE, ORIGINAL
from trm_jax.comparison.judgement.presets import BASELINES, E_SERIES, baseline, best_of, preset_of, series_of
from trm_jax.comparison.record.groups import Group
from trm_jax.comparison.wording import listed, number, percent

TIE = "tie"
BRANCHES = {ORIGINAL: ("o2", "o3"), ONLINE: ("l2", "l3")}
BRANCH_MEANINGS = {ORIGINAL: "how much exploration suits it", ONLINE: "how many ACT steps suit it"}
E_CONTROL = BASELINES[ORIGINAL]  # the preset that the E presets vary


@dataclass(frozen=True)
class NextStep:
    what: str
    commands: tuple[str, ...] = ()


def next_step(answer: str, groups: list[Group]) -> NextStep:
    """What to run next, after `answer` (original, online, tie, undecided) about `groups`."""
    bases = {mode: base for mode in BASELINES if (base := baseline(groups, mode)) is not None}
    for mode, control in BASELINES.items():
        if mode not in bases:
            present = first_trained(*bases.values())
            what = f"There is no run of the {mode} mode: run {control.upper()}."
            return NextStep(what, (variation(present, present.name, control),))
    if answer not in bases:
        return _settle(answer, list(bases.values()))

    base, best = bases[answer], best_of(groups, bases[answer])
    ours = [group for group in groups if group.mode == answer]
    branch = _to_run(BRANCHES[answer], ours, base, BASELINES[answer])
    if branch:
        what = f"{base.label} won: find out {BRANCH_MEANINGS[answer]} with {_upper(branch)}."
        return NextStep(what, _all(branch))
    encoders = _to_run(E_SERIES, ours, best, E_CONTROL)
    if encoders:
        what = f"{best.label} is the best of its mode: compare encoders under it with {_upper(encoders)}."
        return NextStep(what, _all(encoders))
    return NextStep(f"The plan is done. Encoders by final train accuracy: {_ranking(groups, answer)}.")


def _to_run(
    names: Sequence[str], groups: list[Group], base: Group, control: str
) -> dict[str, Sequence[str]]:
    """Of the presets that are not among `groups`, or not finished there: the commands.

    Args:
        base: the group whose settings they take over.
        control: the preset that they vary.
    """
    there: dict[str | None, list[Group]] = {}
    for group in groups:
        there.setdefault(preset_of(group), []).append(group)
    commands = {
        name: [command for group in there[name] for command in finishing(group)]
        if name in there
        else [variation(first_trained(base), control, name)]
        for name in names
    }
    return {name: lines for name, lines in commands.items() if lines}


def _upper(commands: dict[str, Sequence[str]]) -> str:
    return listed([name.upper() for name in commands])


def _all(commands: dict[str, Sequence[str]]) -> tuple[str, ...]:
    return tuple(line for lines in commands.values() for line in lines)


def _settle(answer: str, pair: list[Group]) -> NextStep:
    """What would turn a tie or an open question into an answer: finish what is unfinished, else add seeds."""
    unfinished = [run for group in pair for run in to_finish(group)]
    if unfinished:
        where = listed([f"{run.label} ({percent(run.progress or 0)} done)" for run in unfinished])
        what = f"Finish {where}: the command it was started with goes on from the last checkpoint."
        if any(run.setting("train.max_steps") for run in unfinished):
            what += " Leave out train.max_steps, which ended it."
        return NextStep(what, tuple(command for group in pair for command in finishing(group)))

    diverged = [group.label for group in pair if group.diverged]
    if diverged:
        what = f"{listed(diverged)} diverged: look at gradient norm and learning rate, then run another seed."
    elif answer == TIE:
        what = (
            f"The plan has no branch for a tie: settle it with another seed of each{_or_the_cheaper(pair)}."
        )
    else:
        what = "Add a seed of each and compare again."
    return NextStep(what, tuple(map(another_seed, pair)))


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
