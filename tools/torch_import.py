"""A PyTorch state dict becomes parameters, buffers and a manifest; every key is used once or skipped with a reason."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tools.torch_checkpoint import SKIPPED, CheckpointError, TorchCheckpoint, dtype_name, map_tensors, to_numpy
from tools.torch_names import check_keys, from_torch, name_table
from tools.torch_sizes import Sizes, infer, is_official
from trm_jax.data.arc.grids import VOCAB_SIZE
from trm_jax.models.encoders import NEUTRAL
from trm_jax.run.bar import Bar
from trm_jax.run.pretrained import PUZZLE_EMBEDDINGS_FILE, Key, Manifest, Tree, model_shapes

PUZZLE_EMBEDDINGS = "inner.puzzle_emb.weights"
BLOCK_ROWS = 1 << 14  # of puzzle embeddings copied at a time, 32 MiB


@dataclasses.dataclass(frozen=True)
class Converted:
    """A checkpoint converted in memory: {"decoder": …[, "encoder": …]} twice, float32."""

    manifest: Manifest
    params: Tree
    buffers: Tree


def convert(checkpoint: TorchCheckpoint, flags: dict[str, Any], *, official: bool | None,
            keep_puzzle_embeddings: bool = False, whole: bool = False) -> Converted:
    """Converts a whole checkpoint.

    Args:
        flags: sizes given by the user, by field name.
        official: what the user says of it; None asks the checkpoint.
        keep_puzzle_embeddings: whether the caller will keep them, for the manifest.
        whole: as a model whose contexts are the puzzle embeddings, which become its table.

    Raises:
        CheckpointError, KeyMismatch: naming the keys that do not fit.
    """
    sizes = infer(checkpoint, flags)
    shapes = model_shapes(sizes.arch, sizes.encoder, sizes.seq_len)
    used = {name: tensor for name, tensor in checkpoint.tensors.items()
            if name != PUZZLE_EMBEDDINGS and name not in SKIPPED}
    _check_vocabulary(used)
    for name, tensor in used.items():
        _check_finite(name, tensor)
    check_keys({name: tuple(tensor.shape) for name, tensor in used.items()}, *shapes)
    params, buffers = from_torch({name: to_numpy(tensor) for name, tensor in used.items()}, *shapes)
    table = name_table(*shapes)
    if whole:  # the table itself is copied block by block, see `save_puzzle_embeddings`
        sizes = dataclasses.replace(sizes, encoder=_table_section(checkpoint, sizes))
        table["encoder.table"] = PUZZLE_EMBEDDINGS
    manifest = _manifest(checkpoint, sizes, table, keep_puzzle_embeddings or whole, official)
    return Converted(manifest, params, buffers)


def save_puzzle_embeddings(checkpoint: TorchCheckpoint, folder: Path) -> None:
    """Copies the puzzle embeddings block by block into `folder`. Raises CheckpointError where one is not finite."""
    # From a mapping of its own: the pages that copying touches are given back with it.
    _, tensors = map_tensors(checkpoint.path, checkpoint.entry)
    table = tensors[PUZZLE_EMBEDDINGS]
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False,
              "shape": tuple(table.shape)}
    with (folder / PUZZLE_EMBEDDINGS_FILE).open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in _blocks(table):
            _check_finite(PUZZLE_EMBEDDINGS, block)
            file.write(to_numpy(block).tobytes())


def _blocks(table: torch.Tensor) -> Iterator[torch.Tensor]:
    with Bar(len(table), "puzzle embeddings", "row", keep=False) as bar:
        for block in table.split(BLOCK_ROWS):
            yield block
            bar.update(len(block))


def _table_section(checkpoint: TorchCheckpoint, sizes: Sizes) -> dict[str, Any]:
    """The `encoder` section but for `max_demos`, of a model that looks contexts up."""
    if sizes.encoder is not None:
        raise CheckpointError(f"{checkpoint.path} has an encoder and puzzle embeddings: which of them gives its "
                              "contexts is not known")
    width, hidden_size = checkpoint.tensors[PUZZLE_EMBEDDINGS].shape[1], sizes.arch["hidden_size"]
    if width > sizes.arch["puzzle_emb_len"] * hidden_size:
        raise CheckpointError(f"the {width} numbers of a row of {PUZZLE_EMBEDDINGS} are more than puzzle_emb_len="
                              f"{sizes.arch['puzzle_emb_len']} context tokens of hidden_size={hidden_size} hold")
    return NEUTRAL | {"type": "embedding", "num_layers": 1, "layer_scale_init": 0.0,
                      "embedding_width": 0 if width == hidden_size else width}


def _check_vocabulary(tensors: dict[str, torch.Tensor]) -> None:
    words = len(tensors["inner.embed_tokens.embedding_weight"])
    if words != VOCAB_SIZE:
        raise CheckpointError(f"inner.embed_tokens.embedding_weight has {words} tokens; models of ARC grids have "
                              f"{VOCAB_SIZE} (PAD, EOS and ten colours)")


def _check_finite(name: str, tensor: torch.Tensor) -> None:
    if not tensor.isfinite().all():
        raise CheckpointError(f"{name} holds numbers that are not finite: the training that saved it had diverged")


def _manifest(checkpoint: TorchCheckpoint, sizes: Sizes, table: dict[str, str], kept: bool,
              official: bool | None) -> Manifest:
    ours = {name: path for path, name in table.items()}
    reason = "puzzle embeddings; an encoder takes their place" + (f"; kept in {PUZZLE_EMBEDDINGS_FILE}" if kept else "")
    keys = tuple(
        Key(name, tuple(tensor.shape), dtype_name(tensor), ours.get(name),
            None if name in ours else SKIPPED.get(name, reason))
        for name, tensor in checkpoint.tensors.items())
    embeddings = checkpoint.tensors.get(PUZZLE_EMBEDDINGS)
    if kept and embeddings is None:
        raise CheckpointError(f"--keep-puzzle-embeddings: {checkpoint.path} has no {PUZZLE_EMBEDDINGS}")
    is_so, because = is_official(checkpoint, official)
    if official is None and PUZZLE_EMBEDDINGS in ours and not is_so:
        is_so, because = True, "it answers only tasks whose demonstrations its puzzle embeddings were trained on"
    return Manifest(
        source=checkpoint.path.name, sha256=checkpoint.sha256, arch=sizes.arch, seq_len=sizes.seq_len,
        encoder=sizes.encoder, dtype="float32", keys=keys,
        puzzle_embeddings=None if embeddings is None else tuple(embeddings.shape),
        puzzle_embeddings_kept=kept, official=is_so, official_because=because)
