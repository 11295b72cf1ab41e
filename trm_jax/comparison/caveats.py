"""What a reader must know before believing a verdict."""

from collections.abc import Mapping
from typing import Any

from trm_jax.comparison.contests import ONE_SEED_FLOOR, Pair
from trm_jax.comparison.groups import Group
from trm_jax.comparison.metrics import SAMPLES
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


def caveats(pair: Pair, groups: list[Group]) -> list[str]:
    """All that hold of this comparison, the most general first.

    Args:
        pair: the baselines, at equal epochs.
        groups: all groups, uncut.
    """
    found = [DECIDING_AXIS, _few_seeds(pair), *map(_repeated_seed, groups), _inferred_modes(groups)]
    if pair.common_epochs is not None:
        found.append(
            f"The runs differ in length; final values are those at {number(pair.common_epochs)} epochs."
        )
    found += [*map(_scale, pair.groups), _unexpected_differences(*pair.groups)]
    if any(group.setting("train.load_pretrained_decoder") for group in pair.groups):
        found.append(
            "A pretrained decoder was loaded. The published one was trained with the evaluation tasks' "
            "demonstrations, so that a held-out score which starts from it is not clean."
        )
    if pair.original.has_axis("samples") and not pair.original.has(SAMPLES):
        found.append(
            f"The samples of {pair.original.label} are the rows it was offered: train/samples, which counts "
            "those that were let in, is not logged."
        )
    if not pair.original.runs[0].mode_is_inferred:
        found.append(
            "train/accuracy of the original dynamics is over all rows, also those that have only begun "
            "to think; the rows that halt are in the table beside it."
        )
    return [caveat for caveat in found if caveat]


def _few_seeds(pair: Pair) -> str:
    counts = [group.seeds for group in pair.groups]
    if min(counts) > 1:
        return ""
    words = listed([f"{group.label} has {seeds(group.seeds)}" for group in pair.groups])
    if max(counts) > 1:
        return f"{words}: the spread of the seeds of one is taken for that of the other."
    return (
        f"{words}, and one seed does not show how far seeds lie apart. Noise is what each run shows "
        f"of itself, and at least {ONE_SEED_FLOOR} in accuracy; another seed may turn a difference around."
    )


def _repeated_seed(group: Group) -> str:
    numbers = [run.setting("train.seed") for run in group.runs]
    if len(set(numbers)) == len(numbers):
        return ""
    return f"{group.label}: some of its runs have the same seed, and are no independent evidence."


def _inferred_modes(groups: list[Group]) -> str:
    inferred = [group.label for group in groups if group.runs[0].mode_is_inferred]
    if not inferred:
        return ""
    return (
        f"{listed(inferred)}: no configuration, so that whether train/steps is logged has to tell the mode."
    )


def _scale(group: Group) -> str:
    """The plan's scale and the group's own, where they differ."""
    sizes = (group.setting("data.max_train_groups"), group.setting("train.epochs"))
    if not all(sizes) or sizes == (PLAN_GROUPS, PLAN_EPOCHS):
        return ""
    return (
        f"{group.label} is not at the plan's scale: {sizes[0]} groups for {number(sizes[1])} epochs, "
        f"and not {PLAN_GROUPS} for {number(PLAN_EPOCHS)}."
    )


def _unexpected_differences(a: Group, b: Group) -> str:
    """Settings of the two baselines that differ though the comparison wants them equal."""
    flat_a, flat_b = (_flat(group.runs[0].config) for group in (a, b))
    if not flat_a or not flat_b:
        return ""
    apart = [
        f"{name} ({flat_a.get(name)} / {flat_b.get(name)})"
        for name in sorted(flat_a.keys() | flat_b.keys())
        if flat_a.get(name) != flat_b.get(name) and not name.startswith(EXPECTED_DIFFERENCES)
    ]
    return f"{a.label} and {b.label} differ also in {listed(apart)}." if apart else ""


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{section}.{field}": value
        for section, fields in config.items()
        if isinstance(fields, Mapping)
        for field, value in fields.items()
    }
