"""The way back: trained or converted weights become a state dict that the PyTorch project loads."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from tools.destination import DestinationError, new_file, saving
from tools.torch_checkpoint import CONFIG_FILE
from tools.torch_import import PUZZLE_EMBEDDINGS
from tools.torch_names import to_torch
from tools.torch_sizes import ENCODER_FIELDS
from trm_jax.data.arc.table import NAMES_FILE
from trm_jax.evaluation.trained import load_trained
from trm_jax.run import ancestry
from trm_jax.run.mesh import data_mesh
from trm_jax.run.pretrained import ARCH_FIELDS, PUZZLE_EMBEDDINGS_FILE, Tree, load, read_manifest

PREFIX = "_orig_mod.model."  # of a loss head that torch.compile has wrapped, as the PyTorch trainers save it

# The PyTorch project keeps these in its activations' type and computes in the type that they have.
HALF_PRECISION = re.compile(r"inner\.[HL]_init|encoder\.set_encoder\.query_tokens|"
                            r"encoder\.grid_encoder\.(cls_token|pool_query)")


@dataclasses.dataclass(frozen=True)
class Weights:
    """What is to be exported.

    Attributes:
        params, buffers: {"decoder": …[, "encoder": …]}.
        arch, encoder: fields of the config's sections, under our names; no encoder is None.
        started_from: the pretrained decoder that saw the evaluation tasks' demonstrations, None without one; it is
            recorded so that a later import knows of it.
        puzzle_embeddings: .npy file to put back into the state dict.
        names: of the rows of the table of a model without encoder.
        seq_len: S, tokens of one canvas, where no shape may tell.
    """

    params: Tree
    buffers: Tree
    arch: dict[str, Any]
    encoder: dict[str, Any] | None
    started_from: str | None
    puzzle_embeddings: Path | None = None
    names: list[str] | None = None
    seq_len: int | None = None


def of_converted(path: Path) -> Weights:
    """The weights of a converted checkpoint. Raises ConfigError where there is none."""
    manifest = read_manifest(path)
    params, buffers = load(path, manifest)
    return Weights(params, buffers, manifest.arch, manifest.encoder,
                   started_from=manifest.source if manifest.official else None,
                   puzzle_embeddings=path / PUZZLE_EMBEDDINGS_FILE if manifest.puzzle_embeddings_kept else None)


def of_run(workdir: Path, step: str) -> Weights:
    """The weights that a run is evaluated with: their moving average, which the PyTorch trainers save as well.

    Args:
        step: of the checkpoint, in digits, or "latest" or "best".

    Raises:
        ConfigError: there is no such run or checkpoint.
    """
    trained = load_trained(workdir, data_mesh(), step)
    print(*(f"note: {note}" for note in trained.notes), sep="\n", end="\n" if trained.notes else "")
    arch, encoder = trained.settings.arch, trained.settings.encoder
    seen, start = ancestry.read(workdir)[1] or any(one.seen for one in trained.descent), trained.settings.train
    sizes = {name: getattr(arch, name) for name in (*ARCH_FIELDS, "halt_max_steps")}
    return Weights(trained.params, trained.buffers, sizes,
                   None if trained.table else {name: getattr(encoder, name) for name in ENCODER_FIELDS},
                   started_from=(start.load_pretrained_decoder or start.init_from or str(workdir)) if seen else None,
                   names=trained.table.names(trained.settings.train.seed) if trained.table else None,
                   seq_len=trained.settings.seq_len)


def export(path: Path, weights: Weights, *, force: bool) -> dict[str, torch.Tensor]:
    """Writes the state dict to the file `path` and its sizes to all_config.yaml beside it, the names of a table's
    rows to identifiers.json; returns the state dict.

    Args:
        force: replace files that exist.

    Raises:
        DestinationError: one exists.
    """
    state = {name: _tensor(name, array) for name, array in to_torch(weights.params, weights.buffers).items()}
    if weights.puzzle_embeddings is not None:
        state[PUZZLE_EMBEDDINGS] = torch.from_numpy(np.load(weights.puzzle_embeddings, mmap_mode="c"))
    config, text = path.with_name(CONFIG_FILE), _config(weights)
    if config.exists() and config.read_text() != text and not force:
        raise DestinationError(f"{config} exists and describes another model; choose another folder, or replace it "
                               "with --force")
    with new_file(path, force=force) as file, new_file(config, force=True) as sizes, saving(path):
        torch.save({PREFIX + name: tensor for name, tensor in state.items()}, file)
        sizes.write_text(text)
        if weights.names is not None:
            path.with_name(NAMES_FILE).write_text(json.dumps(weights.names))
    return state


def _config(weights: Weights) -> str:
    encoder = {f"encoder_{name}": value for name, value in (weights.encoder or {}).items()}
    return yaml.safe_dump({"arch": weights.arch | encoder, "load_pretrained_decoder": weights.started_from,
                           "seq_len": weights.seq_len})


def _tensor(name: str, array: np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(array))
    half = tensor.to(torch.bfloat16)
    lossless = torch.equal(half.float(), tensor)
    return half if lossless and HALF_PRECISION.fullmatch(name) else tensor
