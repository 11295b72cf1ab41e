import os
import pickle
import re

import pytest
import torch

from tests import torch_files
from tests.torch_files import convert, error
from trm_jax.run import pretrained


@pytest.fixture
def source(tmp_path):
    return torch_files.write(tmp_path / "source", torch_files.decoder_state())


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


BAD_STATES = {
    "missing": (lambda s: {k: t for k, t in s.items() if k != "inner.q_head.bias"}, r"inner\.q_head\.bias is missing"),
    "missing layer": (lambda s: {k: t for k, t in s.items() if "layers.0." not in k},
                      r"inner\.L_level\.layers\.0\.mlp\.\S+ is missing"),
    "many": (lambda s: s | {f"inner.new{i}": torch.ones(2) for i in range(9)}, r"inner\.new3 is unknown; and 5 more$"),
    "extra": (lambda s: s | {"inner.new.weight": torch.ones(2)}, r"inner\.new\.weight is unknown"),
    "other part": (lambda s: s | {"optimizer.momentum": torch.ones(2)}, r"optimizer\.momentum is unknown"),
    "wrong shape": (lambda s: s | {"inner.lm_head.weight": torch.ones(12, 15)},
                    r"inner\.lm_head\.weight has shape \(12, 15\), expected \(12, 16\)"),
    "twice": (lambda s: s | {"module.inner.lm_head.weight": s["inner.lm_head.weight"]},
              r"inner\.lm_head\.weight stands twice .* as _orig_mod\.model\.inner\S+ and as \S+module\.inner"),
    "integers": (lambda s: s | {"inner.H_init": torch.ones(16, dtype=torch.int32)}, r"inner\.H_init.* is torch\.int32"),
    "not finite": (lambda s: s | {"inner.H_init": torch.full((16,), torch.nan)}, r"inner\.H_init .*not finite"),
    "vocabulary": (lambda s: s | {"inner.embed_tokens.embedding_weight": torch.ones(11, 16)}, r"has 11 tokens"),
    "no TRM": (lambda s: {"fc.weight": torch.ones(2, 2)}, r"inner\.embed_tokens\.embedding_weight is missing"),
    "empty": (lambda s: {}, r"holds no tensors"),
    "no tensor": (lambda s: {"model": {"step": 7}}, r"'_orig_mod\.model\.model', a dict .* give a bare state dict"),
    "two models": (lambda s: {"raw": s, "ema": s}, r"holds 2 state dicts: name one with --entry=\S+raw or"),
    "no dict": (lambda s: [torch.ones(2)], r"holds a list, not a state dict"),
    "encoder": (lambda s: s | {"encoder.lstm.weight": torch.ones(2)}, r"encoder\.\* keys are those of none of"),
}


@pytest.mark.parametrize("name", BAD_STATES)
def test_state_dicts_of_something_else(name, tmp_path, capsys):
    change, message = BAD_STATES[name]
    source = torch_files.write(tmp_path / "source", change(torch_files.decoder_state()))
    line = error(capsys, source, tmp_path / "out")
    assert re.search(message, line), line
    assert not (tmp_path / "out").exists()


BAD_FILES = {
    "truncated": (lambda good, trap: good[:len(good) // 2], r"is truncated"),
    "cut short": (lambda good, trap: good[:-1], r"is truncated"),
    "damaged": (lambda good, trap: good.replace(b"data.pkl", b"data.xyz"), r"damaged or not a file that torch\.save"),
    "empty": (lambda good, trap: b"", r"not a file that torch\.save writes"),
    "text": (lambda good, trap: b"not a checkpoint", r"not a file that torch\.save writes"),
    "pickle": (lambda good, trap: pickle.dumps({"inner.H_init": Attack(trap)}), r"bare pickle.*: refused"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_are_no_checkpoints(name, source, tmp_path, capsys):
    change, message = BAD_FILES[name]
    source.write_bytes(change(source.read_bytes(), tmp_path / "trap"))
    line = error(capsys, source, tmp_path / "out")
    assert re.search(message, line) and str(source) in line, line
    assert not (tmp_path / "out").exists() and not (tmp_path / "trap").exists()


def test_code_in_a_checkpoint_is_refused_and_never_runs(tmp_path, capsys):
    state = torch_files.decoder_state() | {"inner.attack": Attack(tmp_path / "trap")}
    source = torch_files.write(tmp_path / "source", state)
    line = error(capsys, source, tmp_path / "out")
    assert re.search(r"holds the object \S*mkdir besides tensors, and loading it would run code: refused", line), line
    assert not (tmp_path / "out").exists() and not (tmp_path / "trap").exists()


def test_no_file(source, tmp_path, capsys):
    assert "does not exist" in error(capsys, tmp_path / "nothing", tmp_path / "out")
    assert "is a folder; give the checkpoint file" in error(capsys, source.parent, tmp_path / "out")


# Sizes


def test_sizes_that_nothing_tells(tmp_path, capsys):
    source = torch_files.write(tmp_path / "source", torch_files.decoder_state(), config={"puzzle_emb_len": 0})
    line = error(capsys, source, tmp_path / "out")
    for flag in ("--h-cycles", "--l-cycles", "--num-heads", "--puzzle-emb-len", "all_config.yaml"):
        assert flag in line
    assert "--hidden-size" not in line


@pytest.mark.parametrize(("change", "flags", "message"), [
    ({}, ("--l-cycles", 6), "L_cycles is 3 in all_config.yaml but 6 in the command line"),
    ({"hidden_size": 32}, (), "hidden_size is 16 in the shapes but 32 in all_config.yaml"),
    ({"expansion": 400}, (), r"inner\.L_level\.layers\.0\.mlp\.\S+ has shape \(\d+, \d+\), expected"),
    ({"puzzle_emb_len": 3}, (), "puzzle_emb_len is 4 in the shapes but 3 in all_config.yaml"),
    ({"H_cycles": "2"}, (), r"all_config\.yaml: arch\.H_cycles='2' must be a whole number"),
    ({"num_heads": 3}, (), "arch.hidden_size=16 must be an even multiple of arch.num_heads=3"),
])
def test_sizes_that_disagree(change, flags, message, tmp_path, capsys):
    source = torch_files.write(tmp_path / "source", torch_files.etrm_state(), config=torch_files.ARCH | change)
    line = error(capsys, source, tmp_path / "out", "--norm-style", "pre", "--layer-scale-init", 0.1, *flags)
    assert re.search(message, line), line


def test_context_tokens_that_leave_no_square_canvas(source, tmp_path, capsys):
    torch_files.write_config(source.parent, torch_files.ARCH | {"puzzle_emb_len": 3})
    assert "13 positions less puzzle_emb_len=3 leave 10 tokens" in error(capsys, source, tmp_path / "out")


def test_unreadable_config(source, tmp_path, capsys):
    config = source.with_name("all_config.yaml")
    config.write_text("arch: [")
    assert "all_config.yaml cannot be read" in error(capsys, source, tmp_path / "out")
    config.write_text("lr: 1")
    assert "has no section 'arch'" in error(capsys, source, tmp_path / "out")


# Destinations


def test_a_destination_is_replaced_with_force_only(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert convert(source, out) == 0
    before = (out / pretrained.MANIFEST_FILE).read_text()
    torch_files.write_config(source.parent, torch_files.ARCH | {"L_cycles": 5})
    assert "exists" in error(capsys, source, out)
    assert "File exists" in error(capsys, source, source / "out")
    assert (out / pretrained.MANIFEST_FILE).read_text() == before
    assert convert(source, out, "--force") == 0
    assert pretrained.read_manifest(out).arch["L_cycles"] == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_force_never_deletes_another_folder(source, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    assert "replaces converted checkpoints only" in error(capsys, source, tmp_path / "mine", "--force")
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_nothing_is_left_of_an_interrupted_conversion(source, tmp_path, monkeypatch):
    def fail(path, *_):
        (path / "half").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrained, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_disk_that_fills_up_is_one_line(source, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise ValueError('OUT_OF_RANGE: Error writing "x": No space left on device [os_error_code=28]')  # orbax's words

    assert convert(source, tmp_path / "there") == 0
    monkeypatch.setattr(pretrained, "save", full)
    for words in ((source, tmp_path / "out"), ("--export", tmp_path / "there", tmp_path / "out" / "file")):
        assert f"error: {words[-1]} cannot be written to, is there room? (" in error(capsys, *words)
        monkeypatch.setattr(torch, "save", lambda *_: full())
    assert [path.name for path in tmp_path.rglob("out/*")] == []


def test_keeping_puzzle_embeddings_that_are_not_there(tmp_path, capsys):
    source = torch_files.write(tmp_path / "source", torch_files.etrm_state())
    line = error(capsys, source, tmp_path / "out", "--keep-puzzle-embeddings")
    assert "has no inner.puzzle_emb.weights" in line


@pytest.mark.parametrize(("args", "message"), [
    (("SRC",), "required: DST"),
    (("--export", "SRC", "DST", "--verify"), "--verify has no effect with --export"),
    (("--export", "SRC", "DST", "--l-cycles", "4"), "--l-cycles has no effect with --export"),
    (("SRC", "DST", "--step", "7"), "--step has no effect without --export"),
])
def test_flags_without_effect_are_refused(args, message, capsys):
    with pytest.raises(SystemExit):
        convert(*args)
    assert message in capsys.readouterr().err
