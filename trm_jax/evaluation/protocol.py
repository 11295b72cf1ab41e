"""What a score is worth as a claim about unseen tasks, in one word that stands wherever the score does.

    held out      no pair of an evaluated task was trained on
    transductive  demonstrations of evaluated tasks were trained on, never an answer to a query of theirs
    adapted       so they were, by a run that had been trained before on something else
    trained on    an answer itself was trained on: no score at all
"""

import dataclasses
from collections.abc import Sequence

from trm_jax.data.arc.tasks import Task, TaskError
from trm_jax.data.split import DataConfig, load_tasks
from trm_jax.run import settings as settings_lib
from trm_jax.run.ancestry import Ancestor

HELD_OUT, TRANSDUCTIVE, ADAPTED, TRAINED_ON = WORDS = ("held out", "transductive", "adapted", "trained on")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One of WORDS, and what has to stand beside a score, a sentence each."""

    word: str
    notes: tuple[str, ...]


UNTOLD = Protocol("not told", ())  # of votes of which nobody says how they came about


def protocol_of(evaluated: Sequence[Task], trained_on: DataConfig, descent: Sequence[Ancestor],
                adapted: bool) -> Protocol:
    """How a score on `evaluated` is to be called.

    Args:
        trained_on: the run's own data section.
        descent: see `ancestry`; what the run started from.
        adapted: whether it started from a whole model (`train.init_from`).
    """
    ranks, notes = [WORDS.index(HELD_OUT)], []
    links = [(before.name, settings_lib.data_section(before.data), TRANSDUCTIVE) for before in descent if before.data]
    links.append(("the run", trained_on, ADAPTED if adapted else TRANSDUCTIVE))
    for name, data, shown in links:
        try:
            demos, answers = _seen(load_tasks(data).train, evaluated)
        except TaskError as error:
            notes.append(f"whether {name} was trained on evaluated tasks cannot be told: {error}")
            demos, answers = int(data.evaluation_demos), 0
        if answers:
            notes.append(f"{answers} of the {len(evaluated)} evaluated tasks were trained on: their score is not "
                         "held out")
        elif demos:
            notes.append(f"{shown}: {name} was trained on the demonstrations of {demos} of the {len(evaluated)} "
                         "evaluated tasks, not on their answers")
        ranks.append(WORDS.index(TRAINED_ON if answers else shown if demos else HELD_OUT))
    if any(ancestor.seen for ancestor in descent):
        ranks.append(WORDS.index(TRANSDUCTIVE))
    return Protocol(WORDS[max(ranks)], tuple(notes))


def _seen(train: Sequence[Task], evaluated: Sequence[Task]) -> tuple[int, int]:
    """Evaluated tasks of which demonstrations, and of which answered queries, stand among the pairs trained on."""
    pairs = {pair.digest for task in train for pair in task.answered}
    return (sum(any(pair.digest in pairs for pair in task.demos) for task in evaluated),
            sum(any(pair.digest in pairs for pair in task.queries if pair.output is not None) for task in evaluated))
