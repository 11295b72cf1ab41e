"""Run folders with a known answer, and what is read off the verdict on them."""

from collections.abc import Callable
from pathlib import Path

from tests.comparison.fabricate import Scalars, online_config, original_config, write_run
from trm_jax import compare
from trm_jax.comparison.judgement.criteria import Criterion, Outcome
from trm_jax.comparison.judgement.verdict import Verdict, judge
from trm_jax.comparison.record.groups import group_runs


def verdict_of(*folders: Path) -> Verdict:
    return judge(group_runs(compare.load_runs([str(folder) for folder in folders], [])))


def criterion(verdict: Verdict, name: str) -> Criterion:
    return next(c for v in verdict.validations for c in v.criteria if name in c.name)


def outcomes(verdict: Verdict) -> list[Outcome]:
    return [validation.outcome for validation in verdict.validations]


def write_pair(folder: Path, original: dict, online: dict, **settings) -> tuple[Path, Path]:
    """O1 and L1 with the given scalars; `settings` change both configurations."""
    return (
        write_run(folder / "o1", original, original_config(**settings)),
        write_run(folder / "l1", online, online_config(**settings)),
    )


def write_seeds(folder: Path, finals: list[float], prefix: str, scalars, config) -> list[Path]:
    return [
        write_run(folder / f"{prefix}_seed{seed}", scalars(final, seed=seed), config(train__seed=seed))
        for seed, final in enumerate(finals)
    ]


def write_three(
    folder: Path, original: Callable[[int], Scalars], online: Callable[[int], Scalars], **settings
) -> list[Path]:
    """Three seeds of O1 and of L1, of the scalars made from each seed."""
    return [
        write_run(folder / f"{name}_seed{seed}", scalars(seed), config(train__seed=seed, **settings))
        for name, scalars, config in (("o1", original, original_config), ("l1", online, online_config))
        for seed in range(3)
    ]


def until(batches: int, scalars: Scalars) -> dict:
    """The scalars of a run that came no further."""
    return {tag: (steps[steps <= batches], values[steps <= batches]) for tag, (steps, values) in scalars.items()}
