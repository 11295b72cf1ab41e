"""Trained weights that a run starts from: those of another run, or converted from PyTorch.

`train.init_from` takes the whole model, but for a table of embeddings, whose rows are those of other tasks;
`train.load_pretrained_decoder` takes the decoder alone: the experiments compare encoders that start afresh. The
optimiser is fresh in any case.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from trm_jax.dynamics.state import TrainState, Tree
from trm_jax.errors import ConfigError
from trm_jax.paths import user_path
from trm_jax.run import ancestry, config_file, pretrained, record
from trm_jax.run.ancestry import Ancestor
from trm_jax.run.checkpoint import restore_fields
from trm_jax.run.config_file import CONFIG_FILE
from trm_jax.run.saved import choose
from trm_jax.run.settings import Settings

PARTS = {"init_from": ("encoder", "decoder"), "load_pretrained_decoder": ("decoder",)}


@dataclasses.dataclass(frozen=True)
class Source:
    """Trained weights.

    Attributes:
        name: for the log.
        arch: the ARCH_FIELDS; encoder: the `encoder` section but for `max_demos`, None for a decoder alone.
        seq_len: S the weights are made for; None where no weight depends on it.
        descent: oldest first; the last is the source itself.
        read: (part, parameters, buffers) → both of this part, where and as the given leaves are.
        log: lines about damaged checkpoints that were passed by.
    """

    name: str
    arch: dict[str, Any]
    encoder: dict[str, Any] | None
    seq_len: int | None
    descent: tuple[Ancestor, ...]
    read: Callable[[str, Tree, Tree], tuple[Tree, Tree]]
    log: tuple[str, ...] = ()


def fresh_state(init: Callable[[], TrainState],
                settings: Settings) -> tuple[TrainState, tuple[Ancestor, ...], list[str]]:
    """The state before the first batch, with trained weights where the settings name some, and their descent; lines
    for the log.

    Raises:
        ConfigError: there are no such weights, or those of another model.
    """
    found = starting_point(settings)
    state = init()
    if found is None:
        return state, (), ["starts from fresh parameters"]
    params, buffers, log = restore(*found, state.params, state.buffers)
    ema = None if state.ema is None else jax.tree.map(jax.numpy.copy, params)
    return state.replace(params=params, buffers=buffers, ema=ema), found[1].descent, log


def starting_point(settings: Settings) -> tuple[str, Source] | None:
    """The field that names trained weights and what it names; None where the run starts afresh.

    Raises:
        ConfigError: there are no such weights, or those of another model.
    """
    for field in PARTS:
        text = getattr(settings.train, field)
        if text:
            source = find(text)
            _check_fits(f"train.{field}={text}", source, settings, whole="encoder" in PARTS[field])
            return field, source
    return None


def find(text: str) -> Source:
    """The weights of RUN, RUN@STEP ("latest" where no step is given) or a converted checkpoint's folder.

    Raises:
        ConfigError: there are none.
    """
    path, step = user_path(text), "latest"
    if not path.exists() and "@" in path.name:
        name, _, step = path.name.rpartition("@")
        path = path.with_name(name)
    return _of_run(path, step) if (path / CONFIG_FILE).exists() else _of_converted(path)


def restore(field: str, source: Source, params: Tree, buffers: Tree) -> tuple[Tree, Tree, list[str]]:
    """`params` and `buffers` of a fresh model with the parts that the field takes; lines for the log.

    Args:
        params, buffers: {"encoder": …, "decoder": …}; their leaves, arrays or shapes with shardings, say where the
            restored ones go.
    """
    log = [*source.log]
    given = source.descent[-1].name
    embeds = source.encoder is not None and source.encoder["type"] == "embedding"  # rows of the source's own tasks
    for part in ("decoder", "encoder"):
        count = f"{part}: {sum(leaf.size for leaf in jax.tree.leaves(params.get(part, {}))):,} parameters"
        if part in PARTS[field] and not (part == "encoder" and embeds):
            found = source.read(part, params[part], buffers.get(part, {}))
            params = params | {part: found[0]}
            buffers = buffers | ({part: found[1]} if found[1] else {})
            log.append(f"{count} from {source.name}")
        else:
            left = f"; the {source.encoder['type']} encoder of {given} was left out" if source.encoder else ""
            log.append(f"{count}, initialised fresh{left}")
    if note := ancestry.held_out_note(source.descent):
        log.append(f"note: {note}")
    elif source.descent[-1].data is None:
        log.append(f"nothing says whether {given} was trained on evaluation tasks")
    return params, buffers, log


def _of_run(workdir: Path, step: str) -> Source:
    settings = config_file.load(workdir)
    number, log = choose(workdir, step)
    averaged = "ema" if settings.optim.ema else "params"  # see TrainState.eval_params

    def read(part: str, params: Tree, buffers: Tree) -> tuple[Tree, Tree]:
        like = {averaged: {part: params}} | ({"buffers": {part: buffers}} if buffers else {})
        _, found, _ = restore_fields(workdir, str(number), like)
        return found[averaged][part], found["buffers"][part] if buffers else {}

    before, _ = ancestry.read(workdir)
    name = f"the run {workdir} at step {number}"
    fixed = settings.arch.pos_encodings == "learned" or settings.arch.mlp_t
    return Source(name, {field: getattr(settings.arch, field) for field in pretrained.ARCH_FIELDS},
                  _but_slots(dataclasses.asdict(settings.encoder)), settings.seq_len if fixed else None,
                  (*before, record.ancestor(name, settings.data, record.trained_on(workdir))), read, tuple(log))


def _of_converted(path: Path) -> Source:
    manifest = pretrained.read_manifest(path)

    def read(part: str, params: Tree, buffers: Tree) -> tuple[Tree, Tree]:
        found = pretrained.load_part(path, part, params, buffers)
        return found["params"], found["buffers"]

    ancestor = Ancestor(f"the converted checkpoint {manifest.source}", None,
                    manifest.official_because if manifest.official else None)
    return Source(f"{manifest.source} (sha256 {manifest.sha256}) in {path}", manifest.arch, manifest.encoder,
                  manifest.seq_len, (ancestor,), read)


def _but_slots(encoder: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in encoder.items() if field != "max_demos"}  # no weight depends on it


def _check_fits(given: str, source: Source, settings: Settings, whole: bool) -> None:
    """Raises ConfigError, with both values and the flag to set, where a run's sizes are not those of the weights."""
    pairs = [("arch", field, value, getattr(settings.arch, field)) for field, value in source.arch.items()]
    if whole:
        if source.encoder is None:
            raise ConfigError(f"{given} holds a decoder alone; train.load_pretrained_decoder takes that")
        kinds = settings.encoder.type, source.encoder["type"]
        if "embedding" in kinds and kinds[0] != kinds[1]:
            raise ConfigError(f"encoder.type is {kinds[0]!r} in the config and {kinds[1]!r} in {given}, and a table is "
                              "no encoder: train.load_pretrained_decoder takes the decoder alone")
        pairs += [("encoder", field, value, getattr(settings.encoder, field))
                  for field, value in source.encoder.items()]
    problems = [f"{section}.{field} is {here!r} in the config and {there!r} in the checkpoint: "
                f"set --config.{section}.{field}={there}" for section, field, there, here in pairs if here != there]
    if source.seq_len not in (None, settings.seq_len):
        problems.append(f"a canvas has {settings.seq_len} tokens in the config and {source.seq_len} in the checkpoint: "
                        f"set --config.data.max_grid_size={round((source.seq_len or 0)**0.5)}")
    if problems:
        raise ConfigError(f"{given} does not fit the config: {'; '.join(problems)}")
