"""PyTorch checkpoints as files: read safely and without loading what is not looked at."""

import dataclasses
import hashlib
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import torch
import yaml

from trm_jax.run.bar import Bar

WRAPPERS = re.compile(r"^(?:(?:_orig_mod|module|model)\.)+")  # torch.compile, data parallel, loss head
CONFIG_FILE = "all_config.yaml"
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
HASH_BLOCK_BYTES = 1 << 24


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
    """

    path: Path
    sha256: str
    tensors: dict[str, torch.Tensor]
    config: dict


def read(path: Path) -> TorchCheckpoint:
    """Reads a `torch.save`d state dict, never running code that it may hold.

    Raises:
        CheckpointError: the file is damaged, no PyTorch file, holds more than float tensors, or holds a key twice.
    """
    tensors = map_tensors(path)
    return TorchCheckpoint(path, file_sha256(path), tensors, read_config(path.with_name(CONFIG_FILE)))


def map_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Key without wrappers' prefixes → tensor. All share one mapping of the file, which lasts as long as they do.

    Raises:
        CheckpointError: as `read`.
    """
    _check_container(path)
    tensors: dict[str, torch.Tensor] = {}
    origin: dict[str, str] = {}
    for key, value in _load(path).items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{path} holds {key!r}, a {type(value).__name__} and no tensor: give a bare state "
                                  "dict, e.g. the 'model' entry of a training checkpoint saved by itself")
        if value.dtype not in FLOATS:
            raise CheckpointError(f"{key} in {path} is {value.dtype}; float32, float16 and bfloat16 can be converted")
        name = WRAPPERS.sub("", key)
        if name in tensors:
            raise CheckpointError(f"{name} stands twice in {path}, as {origin[name]} and as {key}")
        tensors[name], origin[name] = value.detach(), key
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors")
    return tensors


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
        config = yaml.safe_load(path.read_text())
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
        start = file.read(4)
    if start.startswith(b"\x80"):
        raise CheckpointError(f"{path} is a bare pickle, which may run code when it is opened: refused. A file from "
                              "before PyTorch 1.6 has to be saved again with torch.save")
    if not start.startswith(b"PK"):
        raise CheckpointError(f"{path} is not a file that torch.save writes")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is truncated: its end is missing; download or copy it again")


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
