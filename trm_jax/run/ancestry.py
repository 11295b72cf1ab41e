"""What a run's weights had been trained on before it began: a file in its folder, a line of descent, oldest first.

    pretrained.json   {"held_out_note": what has to stand beside a held-out score, or null, "ancestors": [Ancestor, …]}

A run that started from fresh parameters has none.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trm_jax.errors import ConfigError
from trm_jax.run.reasons import reason

ANCESTRY_FILE = "pretrained.json"


@dataclasses.dataclass(frozen=True)
class Ancestor:
    """A trained model that weights were taken from.

    Attributes:
        name: what the user calls it, and the step.
        data: the `data` section of a run; None for a checkpoint converted from PyTorch.
        seen: how it is known that evaluation tasks' demonstrations were trained on, those of the tasks that it was
            itself scored on; None where nothing says so.
        pairs: digests of all pairs that a run was trained on; None where they are not recorded.
    """

    name: str
    data: dict[str, Any] | None
    seen: str | None
    pairs: Sequence[str] | None = None


def held_out_note(ancestors: Sequence[Ancestor]) -> str | None:
    """What has to stand beside a held-out score of what came from these, None where there is nothing: what a run was
    trained on is known pair by pair."""
    found = [f"{ancestor.name} was itself trained with the evaluation tasks' demonstrations ({ancestor.seen})"
             for ancestor in ancestors if ancestor.seen is not None and ancestor.data is None]
    return f"held-out scores are not clean: {'; '.join(found)}" if found else None


def as_text(ancestors: Sequence[Ancestor]) -> str:
    """Content of the file."""
    return json.dumps({"held_out_note": held_out_note(ancestors),
                       "ancestors": [dataclasses.asdict(ancestor) for ancestor in ancestors]}, indent=2)


def read(workdir: Path) -> tuple[tuple[Ancestor, ...], str | None]:
    """The line of descent of the run in `workdir`, and its note; of runs of earlier versions there is only the note.

    Raises ConfigError: it cannot be read, so that nobody can say what a score of the run is worth.
    """
    file = workdir / ANCESTRY_FILE
    if not file.exists():
        return (), None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        note = content.get("held_out_note")
        return (tuple(Ancestor(**ancestor) for ancestor in content.get("ancestors", [])),
                note and note.removeprefix("note: "))  # which earlier versions wrote
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}, which says what the weights of the run come from, cannot be read: "
                          f"{reason(error)}") from None
