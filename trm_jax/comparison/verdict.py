"""The answer: which dynamics trains the encoder-based model better, on what evidence, and what to run next.

The two baselines of the plan decide; every other group is set beside them and changes nothing.
"""

from dataclasses import dataclass

import numpy as np

from trm_jax.comparison import plan
from trm_jax.comparison.criteria import (
    SPEED_MARGIN,
    Finding,
    Pair,
    act_steps,
    aligned,
    comparable,
    final_accuracy,
    q_head,
    speed,
)
from trm_jax.comparison.groups import Group, learnt_from
from trm_jax.comparison.held_out import held_out
from trm_jax.comparison.statistics import Standing
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.wording import listed, number, percent

ORIGINAL, ONLINE, TIE, UNDECIDED = "original", "online", "tie", "undecided"
ANSWERS = {Standing.BETTER: ORIGINAL, Standing.WORSE: ONLINE, Standing.EQUAL: TIE, Standing.UNDECIDED: UNDECIDED}
NAMES = {ORIGINAL: "The original dynamics", ONLINE: "Online learning"}
EXPECTED = ("mode.", "arch.halt_exploration_prob")  # settings in which the baselines differ by design


@dataclass(frozen=True)
class Validation:
    """Whether one mode does what it was built for: better in all its criteria, not so in one, or it cannot be told."""

    label: str
    mode: str
    findings: tuple[Finding, ...]

    @property
    def standing(self) -> Standing:
        standings = {finding.standing for finding in self.findings}
        if standings & {Standing.WORSE, Standing.EQUAL}:
            return Standing.WORSE
        return Standing.UNDECIDED if Standing.UNDECIDED in standings else Standing.BETTER


@dataclass(frozen=True)
class Verdict:
    """The answer about two baselines.

    Attributes:
        answer: original, online, tie or undecided.
        lean: the mode that the numbers lean to where they decide nothing; "" for none.
        so_far: a run is still going.
        findings: mode against mode: final accuracy, speed, held-out score; none where a mode is missing.
        others: final accuracy of every other group against each baseline.
    """

    answer: str
    headline: str
    why: str
    lean: str
    so_far: bool
    findings: tuple[Finding, ...]
    validations: tuple[Validation, ...]
    others: tuple[Finding, ...]
    caveats: tuple[str, ...]
    next_step: plan.NextStep


def judge(groups: list[Group], max_seeds: int | None = None) -> Verdict:
    """Judges the plan's question; the baselines O1 and L1, or what stands for them, decide.

    Args:
        max_seeds: with so many of each baseline and nothing decided, the next step follows the lean.
    """
    bases = baselines(groups)
    if len(bases) < 2:
        return _one_sided(groups, bases)
    pair = aligned(bases[ORIGINAL], bases[ONLINE])
    findings = accuracy, fast, unseen = final_accuracy(pair), speed(pair), held_out(pair)
    answer, why = _concluded(pair, accuracy, fast, unseen)
    lean = answer if answer in NAMES else _lean(pair, *findings)
    rest = [group for group in groups if group not in bases.values()]
    validations = [_validated(pair)]
    validations += [_validated(aligned(group, bases[ONLINE])) for group in rest
                    if group.mode == ORIGINAL and group.identity.preset == "r1"]
    validations.append(Validation(bases[ONLINE].label, ONLINE, tuple(f.reversed() for f in (fast, accuracy, unseen))))
    others = tuple(final_accuracy(aligned(group, base)) for group in rest for base in bases.values())
    so_far = any(group.unfinished for group in bases.values())
    return Verdict(answer, _headline(answer, lean, so_far, pair, findings, validations), why, lean, so_far, findings,
                   tuple(validations), others, tuple(_caveats(pair, groups)),
                   plan.next_step(answer, lean, groups, bases, max_seeds))


def baselines(groups: list[Group]) -> dict[str, Group]:
    """Mode → the group that stands for it: its control in the plan or else the first of its series; of several such,
    the one that shares most settings with a group of the other mode."""
    found = {}
    for mode in (ORIGINAL, ONLINE):
        ours = [group for group in groups if group.mode == mode]
        theirs = [group for group in groups if group.mode != mode]
        if ours:
            found[mode] = min(ours, key=lambda group: (
                plan.rank_as_baseline(group), min((len(_unexpected(group, other)) for other in theirs), default=0),
                group.label))
    return found


def _validated(pair: Pair) -> Validation:
    """Of the first of the pair, a group of the original dynamics."""
    group = pair.whole[0]
    head = q_head(group)
    return Validation(group.label, ORIGINAL, (head, act_steps(group, head), comparable(pair)))


def _concluded(pair: Pair, accuracy: Finding, fast: Finding, unseen: Finding) -> tuple[str, str]:
    """The answer and one sentence why.

    A mode is better that leads in final accuracy, speed or held-out score, as long as the other leads in none and its
    own final accuracy is at least comparable. It is a tie where neither accuracy nor speed differ.
    """
    if any(group.unfinished for group in pair.whole):
        return UNDECIDED, f"It is not at its end: {pair.problem}."
    labels = {Standing.BETTER: pair.groups[0].label, Standing.WORSE: pair.groups[1].label}
    won = {side: [f.question for f in (accuracy, fast, unseen) if f.standing == side] for side in labels}
    if all(won.values()):
        halves = (f"{label} is better in {listed(won[side])}" for side, label in labels.items())
        return UNDECIDED, f"The criteria disagree: {', '.join(halves)}."
    apart = accuracy.difference
    for side, label in labels.items():
        sign = 1 if side == Standing.BETTER else -1
        if won[side] and apart is not None and sign * apart.value >= -THRESHOLDS.accuracy_margin:
            return ANSWERS[side], f"{label} is better in {listed(won[side])}, and {labels[-side]} in no criterion."
    if accuracy.standing == Standing.UNDECIDED:
        return UNDECIDED, f"Final exact accuracy cannot tell: {accuracy.reason}."
    if fast.standing == Standing.EQUAL:
        also = "" if unseen.standing == Standing.EQUAL else "; the held-out score cannot tell"
        return TIE, f"Final exact accuracy and speed are the same within their margins{also}."
    return UNDECIDED, f"Final exact accuracy is the same within its margin; speed cannot tell: {fast.reason}."


def _lean(pair: Pair, accuracy: Finding, fast: Finding, unseen: Finding) -> str:
    """The mode that is ahead beyond a margin, by accuracy before speed before held-out score; else the cheaper one."""
    margins = (THRESHOLDS.accuracy_margin, SPEED_MARGIN, THRESHOLDS.accuracy_margin)
    if all(group.all_diverged for group in pair.groups):
        return ""
    for finding, margin in zip((accuracy, fast, unseen), margins, strict=True):
        if finding.difference is not None and abs(finding.difference.value) > margin:
            return ORIGINAL if finding.difference.value > 0 else ONLINE
    hours = {group.mode: np.mean(group.ends("hours")) for group in pair.whole if group.has_axis("hours")
             and not group.all_diverged}
    return min(hours, key=lambda mode: float(hours[mode])) if len(hours) == 2 else ""


def _headline(answer: str, lean: str, so_far: bool, pair: Pair, findings: tuple[Finding, ...],
              validations: list[Validation]) -> str:
    """The answer with its axis, what speaks against it, and what makes it provisional."""
    ahead = pair.groups[lean == ONLINE]
    if answer == TIE:
        return "A tie: same exact accuracy, same speed" + (f", {ahead.label} is cheaper" if lean else "")
    mine = [finding if lean == ORIGINAL else finding.reversed() for finding in findings]
    clear = [f for f in mine if f.standing == Standing.BETTER] if answer == lean else \
        [f for f in mine if f.difference is not None and f.difference.value > 0]
    points = [*filter(None, map(_point, clear))]
    points += [f"{group.label} diverged in {lost} of {len(group.runs)}" for group in pair.whole
               if (lost := sum(run.diverged for run in group.runs))]
    singles = [group.label for group in pair.groups if len(group.seeds) == 1]
    doubts = ["one seed each" if len(singles) == 2 else f"one seed of {singles[0]}"] if singles else []
    if answer == UNDECIDED:
        clash = {f.standing for f in findings} >= {Standing.BETTER, Standing.WORSE}
        tail = f"; leaning to {ahead.label} ({', '.join(points)})" if lean and points else ""
        return ("Undecided" + " so far" * so_far + ": the criteria disagree" * clash + tail
                + "".join(f", {doubt}" for doubt in doubts))
    is_speed_alone = clear == [mine[1]] and len(points) == 1
    verb = {ORIGINAL: ("train better", "are better in epochs only"),
            ONLINE: ("trains better", "is better in epochs only")}[answer][is_speed_alone]
    against = [*_costs(mine[1]), *_failures(ahead, validations)]
    doubts += [f"{group.label} stands for {plan.BASELINES[group.mode].upper()}" for group in pair.groups
               if group.identity.preset != plan.BASELINES[group.mode]]
    return (f"{NAMES[answer]} {verb}: {', '.join(points)}" + (f", but {listed(against)}" if against else "")
            + (f" (provisional: {', '.join(doubts)})" if doubts else ""))


def _point(finding: Finding) -> str:
    """What one finding says for its subject, in a few words."""
    numbers = finding.numbers
    if "level" in numbers:
        level = f"{percent(numbers['level'])} exact"
        return f"alone at {level}" if finding.difference is None else \
            f"{number(float(np.exp(-finding.difference.value)))} × the epochs to {level}"
    ours, theirs = (number(float(np.mean(list(numbers[label].values()))))
                    for label in (finding.subject, finding.against))
    return f"{numbers.get('protocol', 'exact accuracy')} {ours} against {theirs}"


def _costs(fast: Finding) -> list[str]:
    """Axes on which the subject takes clearly more to the same accuracy, whichever way the ratios were taken."""
    ratios = fast.numbers.get("ratios", {})
    if fast.difference is None or not ratios:
        return []
    is_first = (fast.difference.value < 0) == (ratios["epochs"] > 1)
    mine = {axis: ratio if is_first else 1 / ratio for axis, ratio in ratios.items()}
    words = [f"{number(ratio)} × the {axis}" for axis, ratio in mine.items() if np.log(ratio) > SPEED_MARGIN]
    return [*words[:-1], f"{words[-1]} to {percent(fast.numbers['level'])} exact"] if words else []


def _failures(ahead: Group, validations: list[Validation]) -> list[str]:
    """The criteria in which the leader's own validation fails, in one part of a sentence."""
    mine = next(v for v in validations if (v.label, v.mode) == (ahead.label, ahead.mode))
    failed = [f"{f.question}: {f.reason or f.evidence.split(';')[0]}" for f in mine.findings
              if f.standing == Standing.WORSE]
    return [f"{ahead.label} fails its own validation ({'; '.join(failed)})"] if failed else []


def _one_sided(groups: list[Group], bases: dict[str, Group]) -> Verdict:
    """Runs of one mode only: the question stays open, but not how they compare, and whether they halt."""
    ((mode, base),) = bases.items()
    head = q_head(base)
    validations = (Validation(base.label, mode, (head, act_steps(base, head))),) if mode == ORIGINAL else ()
    others = tuple(final_accuracy(aligned(group, base)) for group in groups if group is not base)
    so_far = bool(base.unfinished)
    return Verdict(UNDECIDED, f"Undecided{' so far' if so_far else ''}: only runs of the {mode} mode are here",
                   "The question is about both modes.", "", so_far, (), validations, others,
                   tuple(_caveats_of_all(groups)), plan.next_step(UNDECIDED, "", groups, bases))


# ── Caveats ──


def _caveats(pair: Pair, groups: list[Group]) -> list[str]:
    """What a reader must know before believing a verdict."""
    a, b = pair.groups
    found = []
    if apart := _unexpected(*pair.whole):
        more = f" and {len(apart) - 6} more" if len(apart) > 6 else ""
        found.append(f"{a.label} and {b.label} differ also in {listed(apart[:6])}{more}.")
    if singles := [group.label for group in pair.groups if len(group.seeds) == 1]:
        found.append(f"One seed of {listed(singles)}: seeds are taken to differ by a standard deviation of "
                     f"{THRESHOLDS.seed_sd} in accuracy and {percent(THRESHOLDS.seed_log_time_sd)} in time.")
    if "went on" in pair.at:
        found.append(f"Final values are compared {pair.at}.")
    return found + _caveats_of_all(groups)


def _caveats_of_all(groups: list[Group]) -> list[str]:
    found = []
    if unnamed := [group.label for group in groups if not group.identity.is_recorded]:
        found.append(f"{listed(unnamed)}: started by a version, or a program, that records no preset; which run of the "
                     "plan it is goes by its name, and the commands below leave out what else it was given.")
    found += [f"{run.label}: {note}." for group in groups for run in group.runs for note in run.notes]
    found += [f"{group.label}: some of its runs have the same seed, and count as one." for group in groups
              if len(group.seeds) < len(group.runs)]
    if any(group.runs[0].setting("train.load_pretrained_decoder") for group in groups):
        found.append("A pretrained decoder was loaded. The published one was trained with the evaluation tasks' "
                     "demonstrations: a held-out score that starts from it is not clean.")
    return found


def _unexpected(a: Group, b: Group) -> list[str]:
    """Settings known of both that differ though the comparison wants them equal, with both values."""
    ours, theirs = learnt_from(a.runs[0]), learnt_from(b.runs[0])
    return [f"{name} ({ours[name]} / {theirs[name]})" for name in sorted(ours.keys() & theirs.keys())
            if ours[name] != theirs[name] and not name.startswith(EXPECTED)]
