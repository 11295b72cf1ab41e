"""The way back: parameters and buffers become a state dict that the PyTorch project loads."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from tools.destination import DestinationError, new_file
from tools.torch_checkpoint import CONFIG_FILE
from tools.torch_import import PUZZLE_EMBEDDINGS
from tools.torch_names import to_torch
from trm_jax.pretrained import Tree

PREFIX = "_orig_mod.model."  # of a loss head that torch.compile has wrapped, as the PyTorch trainers save it

# The PyTorch project keeps these in its activations' type and computes in the type that they have.
HALF_PRECISION = re.compile(r"inner\.[HL]_init|encoder\.set_encoder\.query_tokens|"
                            r"encoder\.grid_encoder\.(cls_token|pool_query)")


def export(path: Path, params: Tree, buffers: Tree, arch: dict[str, Any], encoder: dict[str, Any] | None, *,
           started_from: str | None = None, puzzle_embeddings: Path | None = None,
           force: bool = False) -> dict[str, torch.Tensor]:
    """Writes the state dict to the file `path` and its sizes to all_config.yaml beside it; returns the state dict.

    Args:
        params, buffers: {"decoder": …[, "encoder": …]}.
        arch, encoder: fields of the config's sections, under our names.
        started_from: the pretrained decoder that training began with, recorded so that a later import knows of it.
        puzzle_embeddings: .npy file to put back into the state dict.
        force: replace files that exist.

    Raises:
        DestinationError: one exists.
    """
    state = {name: _tensor(name, array) for name, array in to_torch(params, buffers).items()}
    if puzzle_embeddings is not None:
        state[PUZZLE_EMBEDDINGS] = torch.from_numpy(np.load(puzzle_embeddings, mmap_mode="c"))
    config = path.with_name(CONFIG_FILE)
    text = yaml.safe_dump({"arch": arch | {f"encoder_{name}": value for name, value in (encoder or {}).items()},
                           "load_pretrained_decoder": started_from})
    if config.exists() and config.read_text() != text and not force:
        raise DestinationError(f"{config} exists and describes another model; choose another folder, or replace it "
                               "with --force")
    with new_file(path, force=force) as weights, new_file(config, force=True) as sizes:
        torch.save({PREFIX + name: tensor for name, tensor in state.items()}, weights)
        sizes.write_text(text)
    return state


def _tensor(name: str, array: np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(array))
    half = tensor.to(torch.bfloat16)
    lossless = torch.equal(half.float(), tensor)
    return half if lossless and HALF_PRECISION.fullmatch(name) else tensor
