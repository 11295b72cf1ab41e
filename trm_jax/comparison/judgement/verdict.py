"""The answer: which dynamics trains the encoder-based model better, on what evidence, and what to run next.

The two baselines of the plan decide; every other group is set beside them.
"""

from dataclasses import dataclass

from trm_jax.comparison.judgement.alignment import align
from trm_jax.comparison.judgement.caveats import caveats, caveats_of_pair, stand_ins
from trm_jax.comparison.judgement.contests import (
    ACCURACY_MARGIN,
    EQUAL,
    ONE_SEED_FLOOR,
    ONLINE,
    ORIGINAL,
    UNDECIDED,
    Contest,
    Pair,
    final_accuracy,
    held_out,
    obstacle,
)
from trm_jax.comparison.judgement.plan import TIE, NextStep, next_step
from trm_jax.comparison.judgement.presets import BASELINES, baseline, series_of
from trm_jax.comparison.judgement.speed import speed
from trm_jax.comparison.judgement.validations import Validation, validate_online, validate_original
from trm_jax.comparison.record.groups import Group, Standing, difference, smoothing_window
from trm_jax.comparison.wording import listed

HEADLINES = {
    ORIGINAL: "The original dynamics train better",
    ONLINE: "Online learning trains better",
    TIE: "A tie",
    UNDECIDED: "Undecided",
}
STANDINGS = {
    Standing.ABOVE: "better",
    Standing.BELOW: "worse",
    Standing.EQUAL: "equal",
    Standing.UNDECIDED: "not to be told apart",
}


@dataclass(frozen=True)
class Aside:
    """How the final train accuracy of a group beside the baselines stands to one of them."""

    label: str
    against: str
    standing: Standing
    evidence: str


@dataclass(frozen=True)
class Verdict:
    answer: str  # original | online | tie | undecided
    headline: str
    why: str
    contests: tuple[Contest, ...]
    validations: tuple[Validation, ...]
    asides: tuple[Aside, ...]
    caveats: tuple[str, ...]
    next_step: NextStep


def judge(groups: list[Group]) -> Verdict:
    """Judges the plan's question on all groups; the baselines O1 and L1, or what stands for them, decide."""
    original, online = baseline(groups, ORIGINAL), baseline(groups, ONLINE)
    if original is None or online is None:
        return _one_sided(groups)
    pair = Pair(original, online, smoothing_window(groups))
    even = pair.aligned()
    contests = accuracy, fast, unseen = final_accuracy(even), speed(pair), held_out(even)
    answer, why = conclude(pair, accuracy, fast, unseen)
    re_encoding = [group for group in groups if series_of(group) == "R" and group is not original]
    asides = _asides([group for group in groups if group not in pair.groups], *pair.groups)
    return Verdict(
        answer=answer,
        headline=_headline(answer, pair),
        why=why + _re_encoding_words(answer, re_encoding, pair, asides),
        contests=contests,
        validations=(
            validate_original(original, accuracy),
            *(
                validate_original(r, final_accuracy(Pair(r, online, pair.window_steps).aligned()))
                for r in re_encoding
            ),
            validate_online(online, accuracy, fast, unseen),
        ),
        asides=tuple(asides),
        caveats=tuple(caveats_of_pair(even, groups)),
        next_step=next_step(answer, groups),
    )


def _one_sided(groups: list[Group]) -> Verdict:
    """Runs of one mode only: the question stays open, but not how they compare, and whether they halt."""
    validations: tuple[Validation, ...] = ()
    present = baseline(groups, groups[0].mode) or groups[0]
    if present.mode == ORIGINAL:
        nothing = Contest("Higher final train accuracy", "", reason="there is no online run to compare with")
        validations = (validate_original(present, nothing),)
    return Verdict(
        answer=UNDECIDED,
        headline=HEADLINES[UNDECIDED],
        why=f"Only runs of the {present.mode} mode are here, and the question is about both.",
        contests=(),
        validations=validations,
        asides=tuple(_asides([group for group in groups if group is not present], present)),
        caveats=tuple(caveats(groups)),
        next_step=next_step(UNDECIDED, groups),
    )


def _headline(answer: str, pair: Pair) -> str:
    """The answer, with what makes it provisional: single seeds, and runs that stand for O1 or L1."""
    single = [group.label for group in pair.groups if group.seeds == 1]
    doubts = [f"{group.label} stands for {BASELINES[group.mode].upper()}" for group in stand_ins(pair)]
    if single:
        doubts.insert(0, "one seed each" if len(single) == 2 else f"one seed of {single[0]}")
    is_open = answer == UNDECIDED or not doubts
    return HEADLINES[answer] + ("" if is_open else f" (provisional: {', '.join(doubts)})")


def conclude(pair: Pair, accuracy: Contest, fast: Contest, unseen: Contest) -> tuple[str, str]:
    """The overall answer and one sentence why.

    A mode is better that leads in final accuracy, speed or held-out score, as long as the other leads in none
    and its own final accuracy is at least comparable. It is a tie where neither accuracy nor speed differ.
    """
    names = {ORIGINAL: pair.original.label, ONLINE: pair.online.label}
    words = {"final train accuracy": accuracy, "epochs to the same accuracy": fast, "held-out score": unseen}
    won = {mode: [word for word, contest in words.items() if contest.leader == mode] for mode in names}
    if won[ORIGINAL] and won[ONLINE]:
        halves = (f"{names[mode]} is better in {listed(won[mode])}" for mode in names)
        return UNDECIDED, f"The criteria disagree: {', '.join(halves)}."
    gap = accuracy.difference
    for mode in names:
        if won[mode] and gap and (gap if mode == ORIGINAL else -gap).is_not_below(ACCURACY_MARGIN):
            return (
                mode,
                f"{names[mode]} is better in {listed(won[mode])}; nothing clearly speaks for the other.",
            )
    if accuracy.leader == UNDECIDED:
        return UNDECIDED, f"Final train accuracy cannot tell: {accuracy.reason}."
    if fast.leader == EQUAL:
        also = "" if unseen.leader == EQUAL else "; the held-out score cannot tell"
        return TIE, f"Final train accuracy and speed are the same within their margins{also}."
    return UNDECIDED, f"Final train accuracy is the same within its margin; speed cannot tell: {fast.reason}."


def _asides(groups: list[Group], *bases: Group) -> list[Aside]:
    """Every one of `groups` against every base."""
    return [_aside(group, base) for group in groups for base in bases]


def _aside(group: Group, base: Group) -> Aside:
    tag = "train/accuracy"
    sides, alignment = align(group, base)
    problem = obstacle(tag, *sides) or alignment.reason
    if problem:
        return Aside(group.label, base.label, Standing.UNDECIDED, problem)
    ours, theirs = (side.final(tag) for side in sides)
    gap = difference(ours, theirs, ONE_SEED_FLOOR)
    evidence = f"difference {gap.value:+.3f}, noise ± {gap.noise:.3f}, {alignment}"
    return Aside(group.label, base.label, gap.standing(ACCURACY_MARGIN), evidence)


def _re_encoding_words(answer: str, re_encoding: list[Group], pair: Pair, asides: list[Aside]) -> str:
    """The R series is the original dynamics with an encoder trained at every step: its win is telling."""
    if answer == ORIGINAL:
        return ""
    above = {
        aside.label
        for aside in asides
        if aside.against == pair.online.label and aside.standing == Standing.ABOVE
    }
    winners = [group.label for group in re_encoding if group.label in above]
    if not winners:
        return ""
    return (
        f" But {listed(winners)}, the original dynamics with an encoder that runs at every step, ends "
        f"above {pair.online.label}: that points at the cached context, not at the dynamics."
    )
