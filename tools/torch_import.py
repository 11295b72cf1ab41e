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
from trm_jax.models.decoder import VOCAB_SIZE
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


def convert(checkpoint: TorchCheckpoint, flags: dict[str, Any], *, keep_puzzle_embeddings: bool,
            official: bool | None) -> Converted:
    """Converts a whole checkpoint.

    Args:
        flags: sizes given by the user, by field name.
        keep_puzzle_embeddings: whether the caller will keep them, for the manifest.
        official: what the user says of it; None asks the checkpoint.

    Raises:
        CheckpointError, KeyMismatch: naming the keys that do not fit.
    """
    sizes = infer(checkpoint, flags)
    shapes = model_shapes(sizes.arch, sizes.encoder, sizes.seq_len)
    used = {name: tensor for name, tensor in checkpoint.tensors.items()
            if name != PUZZLE_EMBEDDINGS and name not in SKIPPED}
    _check_vocabulary(used)
    check_keys({name: tuple(tensor.shape) for name, tensor in used.items()}, *shapes)
    params, buffers = from_torch({name: to_numpy(tensor) for name, tensor in used.items()}, *shapes)
    manifest = _manifest(checkpoint, sizes, name_table(*shapes), keep_puzzle_embeddings, official)
    return Converted(manifest, params, buffers)


def save_puzzle_embeddings(checkpoint: TorchCheckpoint, folder: Path) -> None:
    """Copies the puzzle embeddings block by block into `folder`."""
    # From a mapping of its own: the pages that copying touches are given back with it.
    _, tensors = map_tensors(checkpoint.path, checkpoint.entry)
    table = tensors[PUZZLE_EMBEDDINGS]
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False,
              "shape": tuple(table.shape)}
    with (folder / PUZZLE_EMBEDDINGS_FILE).open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in _blocks(table):
            file.write(to_numpy(block).tobytes())


def _blocks(table: torch.Tensor) -> Iterator[torch.Tensor]:
    with Bar(len(table), "puzzle embeddings", "row", keep=False) as bar:
        for block in table.split(BLOCK_ROWS):
            yield block
            bar.update(len(block))


def _check_vocabulary(tensors: dict[str, torch.Tensor]) -> None:
    words = len(tensors["inner.embed_tokens.embedding_weight"])
    if words != VOCAB_SIZE:
        raise CheckpointError(f"inner.embed_tokens.embedding_weight has {words} tokens; models of ARC grids have "
                              f"{VOCAB_SIZE} (PAD, EOS and ten colours)")


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
    return Manifest(
        source=checkpoint.path.name, sha256=checkpoint.sha256, arch=sizes.arch, seq_len=sizes.seq_len,
        encoder=sizes.encoder, dtype="float32", keys=keys,
        puzzle_embeddings=None if embeddings is None else tuple(embeddings.shape),
        puzzle_embeddings_kept=kept, official=is_so, official_because=because)
