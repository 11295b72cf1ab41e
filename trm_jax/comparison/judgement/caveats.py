"""What a reader must know before believing a verdict."""

import numpy as np

from trm_jax.comparison.judgement.alignment import LENGTH_TOLERANCE, Alignment
from trm_jax.comparison.judgement.contests import ONE_SEED_FLOOR, ORIGINAL, Pair
from trm_jax.comparison.judgement.presets import BASELINES, differences, flat, preset_of
from trm_jax.comparison.judgement.speed import ONE_SEED_SPEED_FLOOR
from trm_jax.comparison.record.groups import Group
from trm_jax.comparison.record.metrics import SAMPLES
from trm_jax.comparison.wording import listed, number, seeds

PLAN_GROUPS, PLAN_EPOCHS = 32, 20_000
DECIDING_AXIS = (
    "Speed is decided by epochs, as the plan asks. An epoch counts the rows that the data pipeline offers, "
    "the same for both modes. But online learning makes several optimiser updates of a batch where the "
    "original dynamics make one, and these take a row in only when another has halted. "
    "Hence the other axes beside it."
)
# Settings in which the two baselines differ by design, or which do not change what is learnt.
EXPECTED_DIFFERENCES = (
    "mode.",
    "arch.halt_exploration_prob",
    "train.seed",
    "train.log_every_steps",
    "checkpoint.",
)


def caveats_of_pair(pair: Pair, groups: list[Group]) -> list[str]:
    """All that hold of a comparison of both modes, the most general first.

    Args:
        pair: the baselines, aligned.
        groups: all groups, uncut.
    """
    found = [
        DECIDING_AXIS,
        *map(_stand_in, stand_ins(pair)),
        _few_seeds(pair),
        _alignment(pair.alignment),
        _unexpected_differences(*pair.groups),
    ]
    return [caveat for caveat in found if caveat] + caveats(groups)


def caveats(groups: list[Group]) -> list[str]:
    """What holds of runs by themselves."""
    found = [*map(_repeated_seed, groups), _inferred_modes(groups), *map(_scale, groups)]
    if any(group.setting("train.load_pretrained_decoder") for group in groups):
        found.append(
            "A pretrained decoder was loaded. The published one was trained with the evaluation tasks' "
            "demonstrations, so that a held-out score which starts from it is not clean."
        )
    original = [group for group in groups if group.mode == ORIGINAL]
    offered = [group.label for group in original if group.has_axis("samples") and not group.has(SAMPLES)]
    if offered:
        found.append(
            f"The samples of {listed(offered)} are the rows that were offered: train/samples, which counts "
            "those that were let in, is not logged."
        )
    if any(not group.runs[0].mode_is_inferred for group in original):
        found.append(
            "train/accuracy of the original dynamics is over all rows, also those that have only begun "
            "to think; the rows that halt are in the table beside it."
        )
    return [caveat for caveat in found if caveat]


def stand_ins(pair: Pair) -> list[Group]:
    """The groups of the pair that are not the plan's baselines."""
    return [group for group in pair.groups if preset_of(group) != BASELINES[group.mode]]


def _stand_in(group: Group) -> str:
    name = BASELINES[group.mode].upper()
    return f"{group.label} stands for {name}: none of the runs is known to have the settings of {name}."


def _alignment(alignment: Alignment) -> str:
    if alignment.reason:
        return f"Final values cannot be compared: {alignment.reason}."
    cut = f"; {listed(list(alignment.cut))} went on beyond that, and was cut" if alignment.cut else ""
    return f"Final values are compared {alignment}{cut}."


def _few_seeds(pair: Pair) -> str:
    counts = [group.seeds for group in pair.groups]
    if min(counts) > 1:
        return ""
    words = listed([f"{group.label} has {seeds(group.seeds)}" for group in pair.groups])
    floors = (
        f"Noise is taken to be at least {ONE_SEED_FLOOR} in accuracy and a factor of "
        f"{number(float(np.exp(ONE_SEED_SPEED_FLOOR)))} in time"
    )
    if max(counts) > 1:
        return f"{words}: the spread of the seeds of one is taken for that of the other. {floors}."
    return (
        f"{words}, and one seed does not show how far seeds lie apart. {floors}; another seed may turn a "
        "difference around."
    )


def _repeated_seed(group: Group) -> str:
    numbers = [run.setting("train.seed") for run in group.runs]
    if len(set(numbers)) == len(numbers):
        return ""
    return f"{group.label}: some of its runs have the same seed, and count as one."


def _inferred_modes(groups: list[Group]) -> str:
    inferred = [group.label for group in groups if group.runs[0].mode_is_inferred]
    if not inferred:
        return ""
    return (
        f"{listed(inferred)}: no configuration that names a mode, so that the name of the run, or whether "
        "train/steps is logged, has to tell it."
    )


def _scale(group: Group) -> str:
    """The plan's scale and what the group has reached, where they differ."""
    tasks = group.setting("data.max_train_groups")
    if not tasks or not group.has_axis("epochs"):
        return ""
    epochs = min(run.end["epochs"] for run in group.runs)
    if tasks == PLAN_GROUPS and abs(epochs / PLAN_EPOCHS - 1) <= LENGTH_TOLERANCE:
        return ""
    return (
        f"{group.label} is not at the plan's scale: {tasks} groups for {number(epochs)} epochs, "
        f"and not {PLAN_GROUPS} for {number(PLAN_EPOCHS)}."
    )


def _unexpected_differences(a: Group, b: Group) -> str:
    """Settings known of both baselines that differ though the comparison wants them equal."""
    settings_a, settings_b = (flat(group.runs[0].config) for group in (a, b))
    apart = [
        f"{name} ({value} / {settings_b[name]})"
        for name, value in sorted(differences(settings_a, settings_b).items())
        if not name.startswith(EXPECTED_DIFFERENCES)
    ]
    return f"{a.label} and {b.label} differ also in {listed(apart)}." if apart else ""
