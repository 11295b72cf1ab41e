"""Weights converted from PyTorch: a folder with a manifest beside one orbax tree for each part of the model.

    manifest.json            what the weights are, where they come from, what became of every key
    decoder/ [encoder/]      {"params": …, "buffers": …}, sealed; an encoder only where the source was a whole ETRM
    [puzzle_embeddings.npy]  (rows, width) float32, where they were kept

`tools/convert_torch_ckpt.py` writes it; `train.init_from` and `train.load_pretrained_decoder` name it.
"""

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from trm_jax.errors import ConfigError
from trm_jax.models.decoder import ArchConfig, Decoder
from trm_jax.models.encoders import EncoderConfig
from trm_jax.models.etrm import ETRM, split
from trm_jax.models.layers import parameter_keys
from trm_jax.run import saved
from trm_jax.run.arrays import load_tree, save_tree
from trm_jax.run.reasons import reason

Tree = dict[str, Any]

MANIFEST_FILE = "manifest.json"
PUZZLE_EMBEDDINGS_FILE = "puzzle_embeddings.npy"
FORMAT = 1
CONVERT = "python tools/convert_torch_ckpt.py"

# What of the `arch` section the weights were trained with; the rest of it (activations, halting) is a run's choice.
ARCH_FIELDS = ("hidden_size", "num_heads", "expansion", "L_layers", "H_cycles", "L_cycles", "puzzle_emb_len",
               "pos_encodings", "mlp_t")


@dataclasses.dataclass(frozen=True)
class Key:
    """What became of one key of the PyTorch state dict.

    Attributes:
        name: without the prefixes of wrappers.
        shape, dtype: as they were there.
        parameter: dotted path of the array here, None where the key was skipped.
        skipped: why, None where it was used.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    parameter: str | None
    skipped: str | None


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a converted checkpoint holds.

    Attributes:
        source, sha256: name and hash of the PyTorch file.
        arch: the ARCH_FIELDS.
        seq_len: S the weights are made for; None where no weight depends on it (rotary positions).
        encoder: the `encoder` section but for `max_demos`; None without an encoder.
        dtype: of the arrays here.
        keys: every key of the source.
        puzzle_embeddings: shape of the source's table, None where it had none.
        puzzle_embeddings_kept: whether PUZZLE_EMBEDDINGS_FILE holds it.
        official: whether training saw the evaluation tasks' demonstrations, as for the published ARC checkpoints.
        official_because: how that is known.
    """

    source: str
    sha256: str
    arch: dict[str, Any]
    seq_len: int | None
    encoder: dict[str, Any] | None
    dtype: str
    keys: tuple[Key, ...]
    puzzle_embeddings: tuple[int, ...] | None
    puzzle_embeddings_kept: bool
    official: bool
    official_because: str
    format: int = FORMAT


def model_shapes(arch: dict[str, Any], encoder: dict[str, Any] | None, seq_len: int | None) -> tuple[Tree, Tree]:
    """Parameter and buffer trees, as shapes, of the model with these sizes; a decoder alone without `encoder`."""
    sizes = ArchConfig(**arch, forward_dtype="float32", attention="xla", remat="none", halt_max_steps=1,
                       halt_exploration_prob=0.0)
    tokens = seq_len or 1  # without a sequence length no shape depends on it
    if encoder is None:
        _, params, buffers = split(nnx.eval_shape(lambda: Decoder(sizes, tokens, parameter_keys(0))))
        return {"decoder": params}, {"decoder": buffers}
    # No shape depends on the number of slots, and what is converted reads demonstrations.
    settings = EncoderConfig(**encoder, embedding_width=0, max_demos=1)
    _, params, buffers = split(nnx.eval_shape(lambda: ETRM(sizes, settings, tokens, parameter_keys(0))))
    return params, buffers


def save(path: Path, manifest: Manifest, params: Tree, buffers: Tree) -> None:
    """Writes a converted checkpoint into the existing folder `path`, the manifest last."""
    for part in params:
        save_tree(path / part, {"params": params[part], "buffers": buffers.get(part, {})})
        saved.seal(path / part)
    save_manifest(path, manifest)


def save_manifest(path: Path, manifest: Manifest) -> None:
    """Writes it last: it is what says that a folder is complete."""
    (path / MANIFEST_FILE).write_text(json.dumps(dataclasses.asdict(manifest), indent=2) + "\n")


def load(path: Path, manifest: Manifest) -> tuple[Tree, Tree]:
    """Parameters and buffers of every part of the converted checkpoint `path`, as numpy arrays."""
    params, buffers = model_shapes(manifest.arch, manifest.encoder, manifest.seq_len)
    parts = {part: load_part(path, part, params[part], buffers.get(part, {})) for part in params}
    return ({part: tree["params"] for part, tree in parts.items()},
            {part: tree["buffers"] for part, tree in parts.items() if tree["buffers"]})


def load_part(path: Path, part: str, params: Tree, buffers: Tree) -> Tree:
    """{"params": …, "buffers": …} of one part of the converted checkpoint `path`, where and as the given leaves are.

    Raises:
        ConfigError: it is missing or damaged.
    """
    try:
        saved.check(path / part, items=())
    except saved.Damaged as damage:
        raise ConfigError(f"the arrays in {path / part} are missing or damaged: {damage}; convert again") from None
    return load_tree(path / part, {"params": params, "buffers": buffers})


def load_table(path: Path, sharding: jax.sharding.Sharding) -> jax.Array:
    """The puzzle embeddings of the converted checkpoint `path`, (rows, width) float32, without a second copy.

    Raises:
        ConfigError: they are missing or damaged.
    """
    file = path / PUZZLE_EMBEDDINGS_FILE
    try:
        return jax.device_put(np.load(file, mmap_mode="r"), sharding)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"the puzzle embeddings in {file} are missing or damaged: {reason(error)}") from None


def read_manifest(path: Path) -> Manifest:
    """The manifest of the converted checkpoint in folder `path`.

    Raises:
        ConfigError: there is none; for a PyTorch file the message gives the command that converts it.
    """
    if not path.exists():
        raise ConfigError(f"no converted checkpoint at {path}: there is no such folder")
    if path.is_file():
        kind = "a PyTorch file" if zipfile.is_zipfile(path) else "a file"
        raise ConfigError(f"no converted checkpoint at {path}: it is {kind}; convert it with "
                          f"`{CONVERT} {path} {path}_jax` and set train.load_pretrained_decoder={path}_jax")
    file = path / MANIFEST_FILE
    if not file.exists():
        raise ConfigError(f"no converted checkpoint at {path}: the folder has no {MANIFEST_FILE}; `{CONVERT}` writes "
                          "it from a PyTorch checkpoint")
    try:
        values = json.loads(file.read_text())
        if values["format"] != FORMAT:
            raise ConfigError(f"{file} has format {values['format']}, this version reads {FORMAT}: convert again")
        table = values["puzzle_embeddings"]
        keys = tuple(Key(**key | {"shape": tuple(key["shape"])}) for key in values["keys"])
        return Manifest(**values | {"keys": keys, "puzzle_embeddings": None if table is None else tuple(table)})
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} cannot be read ({error}): convert again") from None
