"""A run's model at one of its checkpoints, ready to answer."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from trm_jax.data.arc.table import NAMES_FILE, NamedTable, Table, read_names
from trm_jax.data.arc.tasks import Task, pair_digests
from trm_jax.data.split import load_tasks
from trm_jax.dynamics.inference import Measure, Predict
from trm_jax.dynamics.state import Tree
from trm_jax.errors import ConfigError
from trm_jax.evaluation.protocol import Protocol, protocol_of
from trm_jax.models.etrm import ETRM, split
from trm_jax.models.layers import parameter_keys
from trm_jax.paths import user_path
from trm_jax.run import ancestry, config_file, record
from trm_jax.run.ancestry import Ancestor
from trm_jax.run.arrays import abstract
from trm_jax.run.checkpoint import restore_fields
from trm_jax.run.machine import resolve
from trm_jax.run.mesh import Mesh, replicated
from trm_jax.run.pretrained import MANIFEST_FILE, load_table, read_manifest
from trm_jax.run.programs import compiled, compiled_measure
from trm_jax.run.settings import Settings


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        workdir: of the run.
        settings: of the run, with the changes that were asked for, as this machine computes them.
        chosen: what this machine computes with, as lines for a log; see `machine.resolve`.
        step: of the checkpoint, in batches.
        params, buffers: what evaluation uses, on every device of `mesh`.
        predict, measure: see `inference.predict` and `programs.compiled_measure`; compiled on first use.
        table: rows of the embedding table, None for a model that reads demonstrations.
        descent: what the run started from, and last the run itself; see `ancestry`.
        notes: what has to stand beside a score of it.
    """

    workdir: Path
    settings: Settings
    chosen: tuple[str, ...]
    step: int
    mesh: Mesh
    params: Tree
    buffers: Tree
    predict: Predict
    measure: Measure
    table: Table | None
    descent: tuple[Ancestor, ...]
    notes: tuple[str, ...]

    @property
    def computed(self) -> dict[str, Any]:
        """What an answer may depend on besides the model: of two that are all but equal rounding decides."""
        return {"forward_dtype": self.settings.arch.dtype.name, "attention": self.settings.arch.attention,
                "devices": self.mesh.size, "device": self.mesh.devices.flat[0].device_kind}

    def protocol(self, evaluated: Sequence[Task]) -> Protocol:
        """How a score of this model on `evaluated` is to be called."""
        return protocol_of(evaluated, self.descent, adapted=bool(self.settings.train.init_from))

    @functools.cached_property
    def digest(self) -> str:
        """The first 16 hex digits of the sha256 of all weights, and of the names of a table's rows that a file has."""
        names = self.table.names(seed=0) if isinstance(self.table, NamedTable) else []
        found = hashlib.sha256("\n".join(names).encode())
        for leaf in jax.tree.leaves((self.params, self.buffers)):
            found.update(np.ascontiguousarray(jax.device_get(leaf)).reshape(-1).view(np.uint8).data)
        return found.hexdigest()[:16]


def load_trained(workdir: str | Path, mesh: Mesh, step: str = "latest", changes: Iterable[str] = ()) -> Trained:
    """The model of the run in `workdir`, trained on any number of devices, with the parameters that evaluation uses.

    Args:
        step: in digits, "latest" or "best" by held-out score.
        changes: to the run's config, each "SECTION.FIELD=VALUE"; see `config_file.CHANGEABLE`.

    Raises:
        ConfigError: no run, no such checkpoint, or a change that cannot be made.
        TaskError: the tasks, or the names, that an embedding table has rows for cannot be read any more.
    """
    workdir = user_path(workdir)
    own = config_file.load(workdir)
    settings, chosen = resolve(config_file.load(workdir, changes), mesh, training=False)
    trained_on = record.trained_on(workdir)
    table = _table(workdir, own, trained_on) if own.embeds_tasks else None
    graph, params, buffers = split(nnx.eval_shape(lambda: ETRM(
        settings.arch, settings.encoder, settings.seq_len, parameter_keys(0), 0 if table is None else len(table))))
    used = "ema" if settings.optim.ema else "params"  # see TrainState.eval_params
    if isinstance(table, NamedTable):
        del buffers["encoder"]  # stands in a file of its own
    like = {used: params, "buffers": buffers}
    number, fields, notes = restore_fields(workdir, step,
                                           abstract(like, jax.tree.map(lambda _: replicated(mesh), like)))
    if step == "best":
        notes.append("this checkpoint is the best of its run by its score on evaluation tasks, so that such a "
                     "score of it is not held out")
    before, note = ancestry.read(workdir)
    itself = (Ancestor("the run", None, "a row of its table for each task that it can answer")
              if isinstance(table, NamedTable) else record.ancestor("the run", own.data, trained_on))
    notes += [note] if note else []
    if isinstance(table, NamedTable):
        fields["buffers"]["encoder"] = {"table": load_table(workdir, replicated(mesh))}
    predict = compiled(mesh, graph, settings.eval.halt, settings.loss.type, settings.eval.search)
    return Trained(workdir, settings, tuple(chosen), number, mesh, fields[used], fields["buffers"], predict,
                   compiled_measure(mesh, graph), table, (*before, itself), tuple(notes))


def _table(workdir: Path, own: Settings, trained_on: Mapping[str, Sequence[str]] | None) -> Table:
    """Rows of the embedding table of a run, or of a whole TRM converted from PyTorch."""
    if not (workdir / MANIFEST_FILE).exists():
        if trained_on is None:  # a run of an earlier version: its source says in which order the rows are
            split = load_tasks(own.data)
            record.check_tasks(workdir, split)
            trained_on = pair_digests(split.train)
        return Table(trained_on, own.data.variants)
    shape = read_manifest(workdir).puzzle_embeddings
    if shape is None or not (workdir / NAMES_FILE).exists():
        raise ConfigError(f"{workdir} holds a table of puzzle embeddings, and no {NAMES_FILE} that says which task and "
                          "variant each row is: copy the one of the dataset folder that it was trained on there")
    return read_names(workdir / NAMES_FILE, shape[0])
