"""PyTorch checkpoints on disk as their project leaves them, all_config.yaml beside the file; and the converter."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.parity import Case
from tools import convert_torch_ckpt
from tools import torch_reference as reference
from trm_jax.run import pretrained

PREFIX = "_orig_mod.model."
SEQ_LEN = 9
ARCH = {"hidden_size": 16, "num_heads": 2, "expansion": 1.0, "L_layers": 2, "H_cycles": 2, "L_cycles": 3,
        "puzzle_emb_len": 4, "pos_encodings": "learned", "mlp_t": False}
ENCODER = {"type": "standard", "num_layers": 1, "pooling_method": "attention", "set_layers": 2, "norm_style": "pre",
           "layer_scale_init": 0.1, "final_norm": True}

State = dict[str, torch.Tensor]


def decoder_state() -> State:
    """Of a TRM with 20 puzzle embeddings, in float32 but for the two buffers that are bfloat16 there."""
    torch.manual_seed(0)
    decoder = reference.Decoder(**ARCH, seq_len=SEQ_LEN, puzzle_emb_shape=(20, 16))
    decoder.puzzle_emb.weights.normal_()
    state = {f"inner.{name}": tensor for name, tensor in decoder.state_dict().items()}
    return state | {name: state[name].bfloat16() for name in ("inner.H_init", "inner.L_init")}


def etrm_state() -> State:
    """Of an ETRM: the same decoder without puzzle embeddings, and an encoder with every option that shows."""
    torch.manual_seed(1)
    sizes = {name: ARCH[name] for name in ("hidden_size", "num_heads", "expansion")}
    options = {name: value for name, value in ENCODER.items() if name != "type"}
    encoder = reference.make_encoder(ENCODER["type"], **sizes, **options, num_tokens=ARCH["puzzle_emb_len"])
    state = decoder_state() | {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    return {name: tensor for name, tensor in state.items() if "puzzle_emb" not in name}


def write(folder: Path, state: Any, *, config: dict | None = None, prefix: str = PREFIX) -> Path:
    """Saves `state` with prefixed keys in the new `folder`; `config` is the arch section of all_config.yaml."""
    folder.mkdir()
    path = folder / "step_7"
    torch.save({prefix + key: value for key, value in state.items()} if isinstance(state, dict) else state, path)
    config = ARCH | {f"encoder_{name}": value for name, value in ENCODER.items()} if config is None else config
    write_config(folder, config)
    return path


def write_config(folder: Path, arch: dict, **rest: Any) -> None:
    """all_config.yaml, whose sections besides `arch` tell the converter little."""
    (folder / "all_config.yaml").write_text(yaml.safe_dump({"arch": arch, "lr": 1e-4, **rest}))


def of_case(case: Case, folder: Path, file: str = "state_dict.pt") -> Path:
    """A golden case's own file, with its recorded config beside it."""
    folder.mkdir()
    path = folder / file
    path.symlink_to((case.folder / file).resolve())
    write_config(folder, case.info["config"])
    return path


def convert(*args: Any) -> int:
    """The converter's exit status."""
    return convert_torch_ckpt.main([str(arg) for arg in args])


def converted(source: Path, folder: Path, *flags: Any) -> tuple[pretrained.Manifest, pretrained.Tree, pretrained.Tree]:
    """Manifest, parameters and buffers of `source`, converted into `folder` and read again."""
    assert convert(source, folder, *flags) == 0
    manifest = pretrained.read_manifest(folder)
    return manifest, *pretrained.load(folder, manifest)


def error(capsys: pytest.CaptureFixture[str], *args: Any) -> str:
    """The one line that a failing command prints."""
    capsys.readouterr()
    assert convert(*args) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def assert_same_state(path: Path, expected: State) -> None:
    """The state dict in file `path`, its prefix apart, has the same keys, types and bits."""
    state = torch.load(path, weights_only=True)
    assert state.keys() == {PREFIX + name for name in expected}
    for name, tensor in expected.items():
        assert state[PREFIX + name].dtype == tensor.dtype and torch.equal(state[PREFIX + name], tensor), name
