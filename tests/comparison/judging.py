"""What is read off a verdict."""

from collections.abc import Iterable
from pathlib import Path

from trm_jax import compare
from trm_jax.comparison.criteria import Finding
from trm_jax.comparison.groups import Group, group_runs
from trm_jax.comparison.verdict import Verdict, judge


def groups_of(folders: Iterable[Path]) -> list[Group]:
    return group_runs(compare.load_runs([str(folder) for folder in folders]))


def verdict_of(*folders: Path) -> Verdict:
    return judge(groups_of(folders))


def finding(verdict: Verdict, word: str) -> Finding:
    """The finding about both modes, or the first of a validation, whose question has the word in it."""
    every = [*verdict.findings, *(part for validation in verdict.validations for part in validation.parts)]
    return next(f for f in every if word in f.question)


def commands(verdict: Verdict) -> list[str]:
    return [Path(run.workdir).name for run in verdict.next_step.runs]
