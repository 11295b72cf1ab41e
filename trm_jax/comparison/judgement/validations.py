"""The plan's success criteria together: what validates the original dynamics, and what validates online learning."""

from dataclasses import dataclass

from trm_jax.comparison.judgement.contests import ACCURACY_MARGIN, EQUAL, ONLINE, ORIGINAL, UNDECIDED, Contest
from trm_jax.comparison.judgement.criteria import Criterion, Outcome
from trm_jax.comparison.judgement.halting import q_halt_accuracy, steps_are_alive
from trm_jax.comparison.record.groups import Group


@dataclass(frozen=True)
class Validation:
    """Whether one mode does what it was built for: all criteria pass, or one fails, or it cannot be told."""

    title: str
    criteria: tuple[Criterion, ...]

    @property
    def outcome(self) -> Outcome:
        outcomes = {criterion.outcome for criterion in self.criteria}
        if Outcome.FAIL in outcomes:
            return Outcome.FAIL
        return Outcome.UNDECIDED if Outcome.UNDECIDED in outcomes else Outcome.PASS


def validate_original(group: Group, accuracy: Contest) -> Validation:
    """`accuracy` is the contest of final accuracies of this group against the online one."""
    q_head = q_halt_accuracy(group)
    return Validation(
        f"Original dynamics ({group.label})",
        (q_head, steps_are_alive(group, q_head), _comparable(accuracy)),
    )


def validate_online(group: Group, accuracy: Contest, speed: Contest, held_out: Contest) -> Validation:
    return Validation(
        f"Online learning ({group.label})",
        tuple(_online_leads(contest) for contest in (speed, accuracy, held_out)),
    )


def _comparable(accuracy: Contest) -> Criterion:
    """Final accuracy is at least comparable with online learning's: not below it by more than the margin."""
    name = "Final accuracy at least comparable"
    threshold = f"no more than {ACCURACY_MARGIN} below online learning's"
    gap = accuracy.difference
    outcome, reason = Outcome.UNDECIDED, accuracy.reason
    if gap is not None and gap.is_not_below(ACCURACY_MARGIN):
        outcome, reason = Outcome.PASS, ""
    elif accuracy.leader == ONLINE:
        outcome = Outcome.FAIL
    return Criterion(name, outcome, accuracy.evidence, threshold, reason)


def _online_leads(contest: Contest) -> Criterion:
    outcomes = {
        ONLINE: Outcome.PASS,
        ORIGINAL: Outcome.FAIL,
        EQUAL: Outcome.FAIL,
        UNDECIDED: Outcome.UNDECIDED,
    }
    outcome = outcomes[contest.leader]
    return Criterion(contest.question, outcome, contest.evidence, contest.threshold, contest.reason)
