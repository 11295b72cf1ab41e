"""What a score is worth as a claim about unseen tasks, in one word that stands wherever the score does.

    held out      no pair of an evaluated task was trained on
    transductive  demonstrations of evaluated tasks were trained on, never an answer to a query of theirs
    adapted       so they were, by a run that had been trained before on something else
    not told      nobody can say any more what was trained on: no claim
    trained on    an answer itself was trained on: no score at all
"""

import dataclasses
from collections.abc import Sequence

from trm_jax.data.arc.tasks import Task, TaskError, pair_digest, pair_digests
from trm_jax.data.split import load_tasks
from trm_jax.run import settings as settings_lib
from trm_jax.run.ancestry import Ancestor

HELD_OUT, TRANSDUCTIVE, ADAPTED, NOT_TOLD, TRAINED_ON = WORDS = (
    "held out", "transductive", "adapted", "not told", "trained on")  # each outdoes those before it


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One of WORDS, and what has to stand beside a score, a sentence each."""

    word: str
    notes: tuple[str, ...]


UNTOLD = Protocol(NOT_TOLD, ())  # of votes of which nobody says how they came about


def protocol_of(evaluated: Sequence[Task], descent: Sequence[Ancestor], adapted: bool) -> Protocol:
    """How a score on `evaluated` is to be called.

    Args:
        descent: see `ancestry`; what the run started from, and last the run itself.
        adapted: whether it started from a whole model (`train.init_from`).
    """
    words, notes = [HELD_OUT], []
    for link in descent:
        shown = ADAPTED if adapted and link is descent[-1] else TRANSDUCTIVE
        try:
            demos, answers = _seen(_trained_on(link), evaluated)
        except TaskError as error:
            notes.append(f"whether {link.name} was trained on evaluated tasks cannot be told: {error}")
            words.append(NOT_TOLD)
            continue
        if answers:
            notes.append(f"{answers} of the {len(evaluated)} evaluated tasks were trained on: their score is not "
                         "held out")
        elif demos:
            notes.append(f"{shown}: {link.name} was trained on the demonstrations of {demos} of the {len(evaluated)} "
                         "evaluated tasks, not on their answers")
        of_another = link.data is None and link.seen is not None  # no run, and known to have been trained on some
        words.append(TRAINED_ON if answers else shown if demos or of_another else HELD_OUT)
    return Protocol(max(words, key=WORDS.index), tuple(notes))


def _trained_on(link: Ancestor) -> frozenset[str]:
    """Digests of all pairs that are known to have been trained on. Raises TaskError: they can be told no more."""
    if link.pairs is not None or link.data is None:
        return frozenset(link.pairs or ())
    found = load_tasks(settings_lib.data_section(link.data)).train  # a run of an earlier version
    return frozenset(digest for pairs in pair_digests(found).values() for digest in pairs)


def _seen(trained_on: frozenset[str], evaluated: Sequence[Task]) -> tuple[int, int]:
    """Evaluated tasks of which demonstrations, and of which answered queries, stand among the pairs trained on."""
    return (sum(any(pair_digest(pair) in trained_on for pair in task.demos) for task in evaluated),
            sum(any(pair_digest(pair) in trained_on for pair in task.queries if pair.output is not None)
                for task in evaluated))
