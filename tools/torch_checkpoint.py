"""PyTorch checkpoints as files, torch.save's and safetensors: read safely, without loading what is not looked at."""

import dataclasses
import hashlib
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError, safe_open

from trm_jax.paths import LFS_POINTER, foreign, git_lfs_command
from trm_jax.run.bar import Bar

# At any depth: torch.compile, FSDP, activation checkpointing. In front: data parallel and averaging, loss head,
# Lightning's attribute.
WITHIN = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
WRAPPERS = re.compile(r"^(?:(?:module|model|ema_model|online_model|net)\.)+")
PARTS = ("inner.", "encoder.")  # of a model, with which the names of its tensors begin
AVERAGED, RAW = "ema_model", "online_model"  # ema_pytorch's, side by side in one state dict
# What is no part of the model, by its name without the prefixes, and why it is skipped.
SKIPPED = {"n_averaged": "counts the updates of a moving average (torch.optim.swa_utils)",
           "step": "counts the updates of a moving average (ema_pytorch)",
           "initted": "whether a moving average has begun (ema_pytorch)"}
CONFIG_FILE = "all_config.yaml"
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
HASH_BLOCK_BYTES = 1 << 24
MAX_HEADER_BYTES = 100_000_000  # that safetensors itself accepts


class CheckpointError(ValueError):
    """A checkpoint that cannot be converted; one line that names the file or the key."""


@dataclasses.dataclass(frozen=True)
class TorchCheckpoint:
    """A state dict on disk.

    Attributes:
        path: of the file.
        sha256: of the file.
        tensors: key without wrappers' prefixes → tensor, mapped from the file and read when touched.
        config: what all_config.yaml beside the file holds, empty without one.
        entry: where in the file the state dict stands, e.g. "model"; empty where it is all of it.
    """

    path: Path
    sha256: str
    tensors: dict[str, torch.Tensor]
    config: dict
    entry: str = ""


def read(path: Path, entry: str = "") -> TorchCheckpoint:
    """Reads a state dict, bare or within a training checkpoint, never running code that the file may hold.

    Args:
        entry: which of several state dicts in the file; what there is of one is found without.

    Raises:
        CheckpointError: the file is damaged, no checkpoint, holds more than float tensors, or holds a key twice.
    """
    entry, tensors = map_tensors(path, entry)
    return TorchCheckpoint(path, file_sha256(path), tensors, read_config(path.with_name(CONFIG_FILE)), entry)


def map_tensors(path: Path, entry: str = "") -> tuple[str, dict[str, torch.Tensor]]:
    """The entry, and key without wrappers' prefixes → tensor. All share one mapping of the file, which lasts as long
    as they do.

    Raises:
        CheckpointError: as `read`.
    """
    _check_container(path)
    entry, state = _state_dict(path, _load_safetensors(path) if _is_safetensors(path) else _load(path), entry)
    tensors: dict[str, torch.Tensor] = {}
    origin: dict[str, str] = {}
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{path} holds {key!r}, a {type(value).__name__} and no tensor: give a bare state "
                                  "dict, e.g. the 'model' entry of a training checkpoint saved by itself")
        name = _plain(key)
        if value.dtype not in FLOATS and name not in SKIPPED:
            raise CheckpointError(f"{key} in {path} is {value.dtype}; float32, float16 and bfloat16 can be converted")
        if name in tensors:
            raise CheckpointError(f"{name} stands twice in {path}, as {origin[name]} and as {key}")
        tensors[name], origin[name] = value.detach(), key
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors")
    return entry, tensors


def _state_dict(path: Path, content: dict, entry: str) -> tuple[str, dict]:
    """The one state dict in what a file holds, e.g. of {"model": …, "optimizers": …}; all of it where none is."""
    found = dict(_models(content))
    if entry:
        found = {name: state for name, state in found.items() if name == entry}
        if not found:
            raise CheckpointError(f"--entry={entry}: no state dict of a model stands there in {path}")
    if len(found) > 1 and "" not in found:
        raise CheckpointError(f"{path} holds {len(found)} state dicts: name one with --entry={' or '.join(found)}")
    return next(iter(found.items()), ("", content))


def _models(content: dict, entry: str = "") -> Iterator[tuple[str, dict]]:
    """Dotted path and state dict of every model in nested dicts, told by the names of its tensors."""
    names = [key for key, value in content.items() if isinstance(key, str) and isinstance(value, torch.Tensor)]
    if all(any(name.startswith(f"{half}.") for name in names) for half in (AVERAGED, RAW)):
        for half in (AVERAGED, RAW):
            yield f"{entry}.{half}".lstrip("."), {name: content[name] for name in names if name.startswith(f"{half}.")}
        return
    if any(_plain(name).startswith(PARTS) for name in names):
        yield entry, content
        return
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _models(value, f"{entry}.{key}".lstrip("."))


def _plain(key: str) -> str:
    """The name of a tensor without what wrappers have added to it."""
    return WRAPPERS.sub("", WITHIN.sub("", key))


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The tensor in float32; every float16 and bfloat16 number is one in float32 too."""
    return tensor.float().numpy()


def dtype_name(tensor: torch.Tensor) -> str:
    """E.g. "bfloat16"."""
    return str(tensor.dtype).removeprefix("torch.")


def file_sha256(path: Path) -> str:
    """Hex digest of a file, with a progress bar."""
    digest = hashlib.sha256()
    with path.open("rb") as file, Bar(path.stat().st_size, f"sha256 of {path.name}", "byte", keep=False) as bar:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def read_config(path: Path) -> dict:
    """The PyTorch project's record of a run's config; empty where the file does not exist.

    Raises:
        CheckpointError: it is no YAML mapping of plain values.
    """
    if not path.exists():
        return {}
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {_one_line(error)}") from None
    if not isinstance(config, dict) or not isinstance(config.get("arch"), dict):
        raise CheckpointError(f"{path} has no section 'arch'")
    return config


def _check_container(path: Path) -> None:
    """Tells by the file's first bytes and its directory what cannot be a checkpoint, before anything is unpickled."""
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give the checkpoint file in it, e.g. step_518071")
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(LFS_POINTER):
        raise CheckpointError(f"{path} is a Git LFS pointer and not the weights; this fetches them: "
                              f"{git_lfs_command(path)}")
    if _begins_safetensors(start):
        return
    if start.startswith(b"\x80"):
        raise CheckpointError(f"{path} is a bare pickle, which may run code when it is opened: refused. A file from "
                              "before PyTorch 1.6 has to be saved again with torch.save")
    if not start.startswith(b"PK"):
        what = foreign(start)
        raise CheckpointError(f"{path} {what}" if what else
                              f"{path} is not a file that torch.save writes, and no safetensors")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is truncated: its end is missing; download or copy it again")


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return _begins_safetensors(file.read(9))


def _begins_safetensors(start: bytes) -> bool:
    """The length of a header in JSON, eight bytes of which the first may be any, and the header's beginning."""
    return 2 <= int.from_bytes(start[:8], "little") <= MAX_HEADER_BYTES and start[8:9] == b"{"


def _load_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is a damaged or truncated safetensors file: {_one_line(error)}") from None


def _load(path: Path) -> dict:
    try:
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        what = f"the object {wanted.group(1)}" if wanted else "objects"
        raise CheckpointError(f"{path} holds {what} besides tensors, and loading it would run code: refused. Only "
                              "plain state dicts are read; save model.state_dict() by itself") from None
    except (RuntimeError, ValueError, EOFError, KeyError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or not a file that torch.save writes: {_one_line(error)}") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not a state dict")
    return state


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
