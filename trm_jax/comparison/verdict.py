"""The answer: which dynamics trains the encoder-based model better, on what evidence, and what to run next."""

from dataclasses import dataclass

from trm_jax.comparison import contests as c
from trm_jax.comparison.contests import EQUAL, ONLINE, ORIGINAL, UNDECIDED, Contest, Pair
from trm_jax.comparison.criteria import Validation, validate_online, validate_original
from trm_jax.comparison.groups import Group, difference, smoothing_window
from trm_jax.comparison.plan import TIE, NextStep, baseline, next_step, series_letter
from trm_jax.comparison.wording import listed, number, seeds

HEADLINES = {
    ORIGINAL: "The original dynamics train better",
    ONLINE: "Online learning trains better",
    TIE: "A tie",
    UNDECIDED: "Undecided",
}
PLAN_GROUPS, PLAN_EPOCHS = 32, 20_000
DECIDING_AXIS = (
    "Speed is decided by epochs, as the plan asks: an epoch is one pass of the data pipeline over all groups, the same for "
    "both modes. Online learning makes several optimiser updates per batch and the original dynamics one; the original "
    "dynamics take a row of a batch only when one of theirs has halted. The other axes stand beside it for that reason."
)
# Settings in which the two baselines differ by design, or which do not change what is learnt.
EXPECTED_DIFFERENCES = (
    "mode.",
    "arch.halt_exploration_prob",
    "train.seed",
    "train.log_every_steps",
    "checkpoint.",
)


@dataclass(frozen=True)
class Side:
    """A group beside the baselines: how its final train accuracy compares with theirs."""

    label: str
    against: str
    words: str


@dataclass(frozen=True)
class Verdict:
    answer: str  # original | online | tie | undecided
    headline: str
    why: str
    contests: tuple[Contest, ...]
    validations: tuple[Validation, ...]
    sides: tuple[Side, ...]
    caveats: tuple[str, ...]
    next_step: NextStep


def judge(groups: list[Group]) -> Verdict:
    """Judges the plan's question on all groups; the baselines O1 and L1 (or what stands for them) decide."""
    originals, online = baseline(groups, ORIGINAL), baseline(groups, ONLINE)
    if originals is None or online is None:
        present = originals or online
        why = f"Only runs of the {present.mode} mode are here; the question needs both."
        return Verdict(UNDECIDED, HEADLINES[UNDECIDED], why, (), (), (), (), next_step(UNDECIDED, groups))
    pair = Pair(originals, online, smoothing_window(groups))
    even = c.cut_to_common(pair)
    accuracy, speed, held_out = c.final_accuracy(even), c.speed(pair), c.held_out(even)
    answer, why = conclude(pair, accuracy, speed, held_out)
    validations = [validate_original(originals, accuracy), validate_online(online, accuracy, speed, held_out)]
    for group in groups:
        if series_letter(group) == "R" and group is not originals:
            against = c.cut_to_common(Pair(group, online, pair.window_steps))
            validations.insert(1, validate_original(group, c.final_accuracy(against)))
    return Verdict(
        answer=answer,
        headline=HEADLINES[answer],
        why=why,
        contests=(accuracy, speed, held_out),
        validations=tuple(validations),
        sides=tuple(_sides(groups, pair)),
        caveats=tuple(_caveats(even, groups)),
        next_step=next_step(answer, groups),
    )


def conclude(pair: Pair, accuracy: Contest, speed: Contest, held_out: Contest) -> tuple[str, str]:
    """The overall answer and one sentence why.

    Final accuracy decides, as long as neither speed nor the held-out score clearly says the opposite. Where the final
    accuracies are equal, speed and the held-out score decide, unless they contradict each other.
    """
    names = {ORIGINAL: pair.original.label, ONLINE: pair.online.label}
    words = {
        accuracy: "final train accuracy",
        speed: "epochs to the same accuracy",
        held_out: "held-out score",
    }
    won = {mode: [words[x] for x in (accuracy, speed, held_out) if x.leader == mode] for mode in names}
    if won[ORIGINAL] and won[ONLINE]:
        halves = (f"{names[mode]} is better in {listed(won[mode])}" for mode in names)
        return UNDECIDED, f"The criteria disagree: {', '.join(halves)}."
    if not accuracy.is_decided:
        return UNDECIDED, f"Final train accuracy does not tell: {accuracy.reason}."
    for mode in names:
        if won[mode]:
            return (
                mode,
                f"{names[mode]} is better in {listed(won[mode])}; nothing clearly speaks for the other.",
            )
    if speed.leader == EQUAL:
        also = "" if held_out.leader == EQUAL else "; the held-out score does not tell"
        return TIE, f"Final train accuracy and speed are the same within their margins{also}."
    return (
        UNDECIDED,
        f"Final train accuracy is the same within its margin, and speed does not tell: {speed.reason}.",
    )


def _sides(groups: list[Group], pair: Pair) -> list[Side]:
    """Every other group's final train accuracy against both baselines, at equal epochs."""
    sides = []
    for group in groups:
        if group in pair.groups:
            continue
        for base in pair.groups:
            even = c.cut_to_common(Pair(group, base, pair.window_steps))
            problem = c.obstacle("train/accuracy", even.original, even.online)
            if problem:
                sides.append(Side(group.label, base.label, f"cannot be told: {problem}"))
                continue
            gap = difference(
                even.original.final("train/accuracy"),
                even.online.final("train/accuracy"),
                floor=c.ONE_SEED_FLOOR,
            )
            who = c.leader(gap, c.ACCURACY_MARGIN)
            word = {ORIGINAL: "better", ONLINE: "worse", EQUAL: "equal", UNDECIDED: "not to be told apart"}[
                who
            ]
            sides.append(Side(group.label, base.label, f"{word} ({gap.value:+.3f}, noise ± {gap.noise:.3f})"))
    return sides


def _caveats(pair: Pair, groups: list[Group]) -> list[str]:
    """What a reader must know before believing the verdict."""
    found = [DECIDING_AXIS]
    if pair.seeds == 1:
        found.append(
            f"{listed([f'{group.label}: {seeds(group.seeds)}' for group in pair.groups])}. One seed does not show the spread "
            f"between seeds; noise is then what the run itself shows, and at least {c.ONE_SEED_FLOOR} in accuracy."
        )
    if pair.common_epochs is not None:
        found.append(
            f"The runs differ in length; final values are compared at {number(pair.common_epochs)} epochs."
        )
    found += [_repeated_seed(group) for group in groups if _repeated_seed(group)]
    inferred = [group.label for group in groups if group.runs[0].mode_is_inferred]
    if inferred:
        found.append(
            f"{listed(inferred)}: without a configuration, so the mode is inferred from whether train/steps is logged."
        )
    found += _scale(pair)
    apart = _unexpected_differences(*pair.groups)
    if apart:
        found.append(f"{pair.original.label} and {pair.online.label} differ also in {listed(apart)}.")
    if any(group.setting("train.load_pretrained_decoder") for group in pair.groups):
        found.append(
            "A pretrained decoder was loaded. The published one was trained with the evaluation tasks' demonstrations, so "
            "the held-out score is not a clean one."
        )
    if not pair.original.runs[0].mode_is_inferred:
        found.append(
            "train/accuracy of the original dynamics is over all rows, also those that have only begun to think; "
            "the table has the rows that halt beside it."
        )
    return found


def _repeated_seed(group: Group) -> str:
    numbers = [run.setting("train.seed") for run in group.runs]
    repeated = len(set(numbers)) < len(numbers)
    return (
        f"{group.label}: some of its runs have the same seed and are no independent evidence."
        if repeated
        else ""
    )


def _scale(pair: Pair) -> list[str]:
    """The plan's scale and the runs' own, where they differ."""
    found = []
    for group in pair.groups:
        sizes = (group.setting("data.max_train_groups"), group.setting("train.epochs"))
        if all(sizes) and sizes != (PLAN_GROUPS, PLAN_EPOCHS):
            found.append(
                f"{group.label}: {sizes[0]} groups for {number(sizes[1])} epochs; the plan has {PLAN_GROUPS} groups for "
                f"{number(PLAN_EPOCHS)}."
            )
    return found


def _unexpected_differences(a: Group, b: Group) -> list[str]:
    """Settings of the two baselines that differ though the comparison wants them equal."""
    if a.runs[0].config is None or b.runs[0].config is None:
        return []
    flat_a, flat_b = (_flat(group.runs[0].config) for group in (a, b))
    return [
        f"{name} ({flat_a.get(name)} / {flat_b.get(name)})"
        for name in sorted(flat_a.keys() | flat_b.keys())
        if flat_a.get(name) != flat_b.get(name) and not name.startswith(EXPECTED_DIFFERENCES)
    ]


def _flat(config: dict) -> dict[str, object]:
    return {
        f"{section}.{field}": value
        for section, fields in config.items()
        if isinstance(fields, dict)
        for field, value in fields.items()
    }
