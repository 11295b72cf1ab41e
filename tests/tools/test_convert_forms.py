"""The forms in which people have checkpoints: safetensors, within training checkpoints, under wrappers' prefixes."""


import pytest
import torch
from safetensors.torch import save_file

from tests import torch_files
from tests.torch_files import converted, error
from tools.torch_checkpoint import SKIPPED

STATE = torch_files.decoder_state()


def under(prefix, state=STATE):
    return {prefix + name: tensor for name, tensor in state.items()}


def wrapped_within(state):
    """As of a model of which parts were compiled, sharded and checkpointed by themselves."""
    return {name.replace("L_level.", "L_level._orig_mod.", 1).replace("layers.0.", "_fsdp_wrapped_module.layers.0.")
            .replace("layers.1.", "layers.1._checkpoint_wrapped_module."): tensor
            for name, tensor in under("module.", state).items()}


def ema_pytorch(**halves):
    return {f"{half}.{name}": tensor for half, state in halves.items() for name, tensor in state.items()} | {
        "initted": torch.tensor(True), "step": torch.tensor(7)}


FORMS = {
    "training checkpoint": ({"model": under("_orig_mod.model."), "optimizers": [{"state": {}}], "step": 7}, "model"),
    "Lightning": ({"state_dict": under("net."), "epoch": 1, "pytorch-lightning_version": "2.5",
                   "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}]}, "state_dict"),
    "nested": ({"state": {"model": under("module._orig_mod.model.")}}, "state.model"),
    "averaged": (under("module.") | {"n_averaged": torch.tensor(7)}, ""),
    "ema_pytorch": (ema_pytorch(ema_model=STATE), ""),
    "wrapped within": (wrapped_within(STATE), ""),
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The converted bare state dict."""
    folder = tmp_path_factory.mktemp("bare")
    return converted(torch_files.write(folder / "source", STATE), folder / "out")


def assert_same(found, expected):
    (manifest, *trees), (expected_manifest, *expected_trees) = found, expected
    assert manifest.arch == expected_manifest.arch
    for tree, expected_tree in zip(trees, expected_trees, strict=True):
        leaves, expected_leaves = (torch.utils._pytree.tree_leaves(each) for each in (tree, expected_tree))
        assert all((a == b).all() for a, b in zip(leaves, expected_leaves, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_wrappers_are_unwrapped(form, bare, tmp_path, capsys):
    content, entry = FORMS[form]
    source = torch_files.write(tmp_path / "source", {}, prefix="")
    torch.save(content, source)
    found = converted(source, tmp_path / "out")
    assert_same(found, bare)
    assert (f"its entry {entry!r} was read" in capsys.readouterr().out) == bool(entry)
    skipped = {key.name: key.skipped for key in found[0].keys if key.skipped in SKIPPED.values()}
    assert skipped == {name: SKIPPED[name] for name in {"averaged": ["n_averaged"],
                                                        "ema_pytorch": ["initted", "step"]}.get(form, [])}


DOUBLED = {name: tensor * 2 for name, tensor in STATE.items()}


@pytest.mark.parametrize(("content", "entries"), [
    ({"raw": DOUBLED, "ema": STATE}, ["raw", "ema"]),
    (ema_pytorch(online_model=DOUBLED, ema_model=STATE), ["ema_model", "online_model"])])
def test_one_of_several_models_is_named(content, entries, bare, tmp_path, capsys):
    source = torch_files.write(tmp_path / "source", {}, prefix="")
    torch.save(content, source)
    assert error(capsys, source, tmp_path / "out").endswith(
        f"holds 2 state dicts: name one with --entry={' or '.join(entries)}")
    assert "--entry=x: no state dict" in error(capsys, source, tmp_path / "out", "--entry=x")
    averaged = next(entry for entry in entries if "ema" in entry)
    assert_same(converted(source, tmp_path / "out", f"--entry={averaged}"), bare)


@pytest.mark.parametrize("first_byte", [None, 0x80, 0x50])
def test_safetensors_are_read_whatever_their_first_byte(first_byte, bare, tmp_path):
    """It is the lowest of the header's length: 0x80 begins a pickle too, 0x50 a zip archive."""
    source = torch_files.write(tmp_path / "source", {}, prefix="")
    save_file(under("_orig_mod.model."), source)
    if first_byte is not None:
        whole = source.read_bytes()
        length = int.from_bytes(whole[:8], "little")
        header = whole[8:8 + length] + b" " * ((first_byte - length) % 256)
        source.write_bytes(len(header).to_bytes(8, "little") + header + whole[8 + length:])
        assert source.read_bytes()[0] == first_byte
    assert_same(converted(source, tmp_path / "out"), bare)


def test_safetensors_that_are_cut_short(tmp_path, capsys):
    source = torch_files.write(tmp_path / "source", {}, prefix="")
    save_file(STATE, source)
    source.write_bytes(source.read_bytes()[:-9])
    assert "is a damaged or truncated safetensors file" in error(capsys, source, tmp_path / "out")


def test_a_git_lfs_pointer_is_named_with_what_fetches_it(tmp_path, capsys):
    source = torch_files.write(tmp_path / "source", STATE)
    source.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1830000000\n")
    line = error(capsys, source, tmp_path / "out")
    assert "is a Git LFS pointer" in line and line.endswith(f"git -C {source.parent} lfs pull --include=step_7")


def test_weights_that_are_no_moving_average_are_pointed_out(tmp_path, capsys):
    source = torch_files.write(tmp_path / "source", STATE)
    for ema, told in ((False, True), (True, False)):
        torch_files.write_config(source.parent, torch_files.ARCH, ema=ema)
        assert torch_files.convert(source, tmp_path / "out", "--dry-run") == 0
        assert ("all_config.yaml says ema: false" in capsys.readouterr().out) == told
