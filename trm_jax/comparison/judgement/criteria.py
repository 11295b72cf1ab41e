"""A success criterion of the plan, with its evidence and threshold."""

from dataclasses import dataclass
from enum import StrEnum

from trm_jax.comparison.record.groups import Group
from trm_jax.comparison.record.metrics import BY_TAG
from trm_jax.comparison.wording import with_spread


class Outcome(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Criterion:
    name: str
    outcome: Outcome
    evidence: str
    threshold: str
    reason: str = ""  # why it is undecided, or what to keep in mind


def final_evidence(group: Group, tag: str) -> str:
    if not group.has(tag):
        return ""
    final = group.final(tag)
    return f"{BY_TAG[tag].title}: {with_spread(final.mean, final.spread)} at the end"


def first(*checks: tuple[bool, Outcome, str]) -> tuple[Outcome, str]:
    """Outcome and reason of the first check that holds; a pass where none does."""
    return next(((outcome, reason) for holds, outcome, reason in checks if holds), (Outcome.PASS, ""))
