"""The answer: which dynamics trains the encoder-based model better, on what evidence, and what to run next.

The two baselines of the plan decide; every other group is set beside them and changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trm_jax.comparison import plan
from trm_jax.comparison.criteria import SPEED_MARGIN, Finding, Pair, comparable, final_accuracy, held_out, speed
from trm_jax.comparison.groups import Group, learnt_from
from trm_jax.comparison.halting import act_steps, q_head
from trm_jax.comparison.runs import ONLINE, ORIGINAL, SERIES, VARIED
from trm_jax.comparison.statistics import Standing
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.wording import listed, number, percent

TIE, UNDECIDED = "tie", "undecided"
SUBJECTS = {ORIGINAL: ("The original dynamics", "train", "are"), ONLINE: ("Online learning", "trains", "is")}
Found = Mapping[str, tuple[Finding, Finding, Finding]]  # mode → its accuracy, speed, held-out score against the other


@dataclass(frozen=True)
class Verdict:
    """The answer about two baselines."""

    answer: str  # original, online, tie or undecided
    headline: str
    lean: str  # the mode that the numbers lean to where they decide nothing; "" for none
    so_far: bool  # a run is still going
    findings: Sequence[Finding]  # original against online: accuracy, speed, held-out score; none without both modes
    validations: Sequence[Finding]  # whether each mode does what the plan hopes of it
    others: Sequence[Finding]  # final accuracy of every other group against each baseline
    caveats: Sequence[str]
    next_step: plan.NextStep


def judge(groups: list[Group], max_seeds: int | None = None) -> Verdict:
    """Judges the plan's question; the baselines O1 and L1, or what stands for them, decide. With `max_seeds` of each
    and nothing decided, the next step follows the lean."""
    bases = baselines(groups)
    rest = [group for group in groups if group not in bases.values()]
    others = [final_accuracy(Pair(group, base)) for group in rest for base in bases.values()]
    so_far = any(base.unfinished for base in bases.values())
    if len(bases) < 2:
        ((mode, base),) = bases.items()
        hopes = [_validation(base)] if mode == ORIGINAL else []
        headline = f"Undecided{' so far' * so_far}: only runs of the {mode} mode are here"
        return Verdict(UNDECIDED, headline, "", so_far, (), hopes, others, _caveats(groups, [base]),
                       plan.next_step(UNDECIDED, "", groups, bases, others))
    original, online = bases[ORIGINAL], bases[ONLINE]
    pair = Pair(original, online)
    found = {side.groups[0].mode: (final_accuracy(side), speed(side), held_out(side))
             for side in (pair, Pair(online, original))}
    answer = _answer(pair, found)
    lean = answer if answer in found else _lean(pair, found)
    hopes = [_validation(group, comparable(Pair(group, online)))
             for group in (original, *(group for group in rest if group.identity.preset == "r1"))]
    hopes.append(_validation(online, *(found[ONLINE][part] for part in (1, 0, 2))))  # in the order of the plan
    step = plan.next_step(answer, lean, groups, bases, others, max_seeds)
    return Verdict(answer, _headline(answer, lean, so_far, pair, found, hopes), lean, so_far, found[ORIGINAL], hopes,
                   others, _caveats(groups, pair.groups), step)


def baselines(groups: list[Group]) -> dict[str, Group]:
    """Mode → the group that stands for it: its control in the plan or else the first of its series; of several such,
    the one that shares most settings with a group of the other mode."""
    found = {}
    for mode, presets in SERIES.items():
        theirs = [group for group in groups if group.mode != mode]
        ranks = {group: ((*presets, group.identity.preset).index(group.identity.preset),
                         min((len(_unexpected(group, other)) for other in theirs), default=0), group.label)
                 for group in groups if group.mode == mode}
        if ranks:
            found[mode] = min(ranks, key=lambda group: ranks[group])
    return found


def _validation(group: Group, *parts: Finding) -> Finding:
    """Better in all its parts, worse where it is not so in one, or it cannot be told; halting is the original's."""
    if group.mode == ORIGINAL:
        head = q_head(group)
        parts = (head, act_steps(group, head), *parts)
    standings = {Standing.WORSE if part.standing == Standing.EQUAL else part.standing for part in parts}
    standing = next(one for one in (Standing.WORSE, Standing.UNDECIDED, Standing.BETTER) if one in standings)
    return Finding(f"{group.label} as the plan hopes", group.label, group.mode, standing, parts=parts)


def _answer(pair: Pair, found: Found) -> str:
    """The mode that leads in accuracy, speed or held-out score, while the other leads in none and its own accuracy is
    at least comparable; a tie where neither accuracy nor speed differ."""
    leads = {mode: any(f.standing == Standing.BETTER for f in findings) for mode, findings in found.items()}
    if any(group.unfinished for group in pair.groups) or all(leads.values()):
        return UNDECIDED
    for mode, (accuracy, *_) in found.items():
        if leads[mode] and accuracy.difference and accuracy.difference.value >= -THRESHOLDS.accuracy_margin:
            return mode
    return TIE if {f.standing for f in found[ORIGINAL][:2]} == {Standing.EQUAL} else UNDECIDED


def _lean(pair: Pair, found: Found) -> str:
    """The mode that is ahead beyond a margin, by accuracy before speed before held-out score; else the cheaper one."""
    if not all(group.sound for group in pair.groups):
        return next((group.mode for group in pair.groups if group.sound), "")
    margins = THRESHOLDS.accuracy_margin, SPEED_MARGIN, THRESHOLDS.accuracy_margin
    for finding, margin in zip(found[ORIGINAL], margins, strict=True):
        if finding.difference and abs(finding.difference.value) > margin:
            return ORIGINAL if finding.difference.value > 0 else ONLINE
    return min(pair.groups, key=lambda group: float(np.mean(group.ends("hours")))).mode if pair.shared("hours") else ""


def _headline(answer: str, lean: str, so_far: bool, pair: Pair, found: Found, hopes: Sequence[Finding]) -> str:
    """The answer with its axis, what speaks against it, and what makes it provisional."""
    mine, ahead = found[lean or ORIGINAL], pair.labels[lean == ONLINE]
    if answer == TIE:
        return "A tie: same exact accuracy, same speed" + (f", {ahead} is cheaper" if lean else "")
    clear = [f for f in mine if (f.standing == Standing.BETTER if answer == lean else
                                 f.difference and f.difference.value > 0)]
    points = [*map(_point, clear)]
    points += [f"{group.label} diverged in {lost} of {len(group.runs)}" for group in pair.groups
               if (lost := len(group.runs) - len(group.sound))]
    singles = [group.label for group in pair.groups if len(group.seeds) == 1]
    doubts = ["one seed each" if len(singles) == 2 else f"one seed of {singles[0]}"] if singles else []
    if answer == UNDECIDED:
        clash = ": the criteria disagree" * ({f.standing for f in mine} >= {Standing.BETTER, Standing.WORSE})
        leaning = f"; leaning to {ahead} ({', '.join(points)})" if lean and points else ""
        return ", ".join([f"Undecided{' so far' * so_far}{clash}{leaning}", *doubts])
    costs = [f"{number(ratio)} × the {axis}" for axis, ratio in mine[1].ratios.items() if np.log(ratio) > SPEED_MARGIN]
    against = [f"{listed(costs)} to {percent(mine[1].numbers['level'])} exact"] if costs else []
    failed = [f"{f.question}: {f.reason or f.evidence.split(';')[0]}" for hope in hopes if hope.subject == ahead
              for f in hope.parts if f.standing == Standing.WORSE]
    against += [f"{ahead} fails its own validation ({'; '.join(failed)})"] if failed else []
    doubts += [f"{group.label} stands for {plan.BASELINES[group.mode].upper()}" for group in pair.groups
               if group.identity.preset != plan.BASELINES[group.mode]]
    name, trains, is_ = SUBJECTS[answer]
    verb = f"{is_} better in epochs only" if clear == [mine[1]] and len(points) == 1 else f"{trains} better"
    return (f"{name} {verb}: {', '.join(points)}" + (f", but {' and '.join(against)}" if against else "")
            + (f" (provisional: {', '.join(doubts)})" if doubts else ""))


def _point(finding: Finding) -> str:
    """What one finding says for its subject, in a few words."""
    if "level" in finding.numbers:
        level = f"{percent(finding.numbers['level'])} exact"
        return f"{number(finding.ratios['epochs'])} × the epochs to {level}" if finding.ratios else f"alone at {level}"
    ours, theirs = (number(float(np.mean(list(finding.numbers[label].values()))))
                    for label in (finding.subject, finding.against))
    return f"{finding.numbers.get('protocol', 'exact accuracy')} {ours} against {theirs}"


def _caveats(groups: Sequence[Group], bases: Sequence[Group]) -> list[str]:
    """What a reader must know before believing a verdict."""
    found = {
        "The baselines differ also in {}.": _unexpected(*bases) if len(bases) == 2 else [],
        "No preset is recorded of {}: which run of the plan it is goes by its name, and the commands below leave out "
        "what else it was given.": [group.label for group in groups if not group.identity.is_recorded],
        "Some runs of {} have the same seed, and count as one.": [
            group.label for group in groups if len(group.seeds) < len(group.runs)],
        "{} began with a pretrained decoder. The published one was trained with the evaluation tasks' demonstrations: "
        "a held-out score that starts from it is not clean.": [
            group.label for group in groups if group.setting("train.load_pretrained_decoder")],
    }
    return [*(text.format(listed(words)) for text, words in found.items() if words),
            *(f"{run.label}: {note}." for group in groups for run in group.runs for note in run.notes)]


def _unexpected(a: Group, b: Group) -> list[str]:
    """Settings known of both that differ though the comparison wants them equal, with both values."""
    ours, theirs = learnt_from(a.runs[0]), learnt_from(b.runs[0])
    return [f"{name} ({ours[name]} / {theirs[name]})" for name in sorted(ours.keys() & theirs.keys())
            if ours[name] != theirs[name] and not name.startswith(VARIED)]
