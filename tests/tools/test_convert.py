import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from tests import golden, parity, torch_files
from tests.torch_files import assert_same_state, convert, converted, error
from tools import verify
from trm_jax.models.decoder import Decoder
from trm_jax.models.etrm import split
from trm_jax.models.layers import parameter_keys
from trm_jax.run import start

ROOT = Path(__file__).parents[2]


# Golden cases


def final_norm(case):
    """The flag for what no config of the PyTorch project records."""
    return "--final-norm" if case.info["set_encoder_final_norm"] else "--no-final-norm"


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parity
@pytest.mark.parametrize("case", parity.cases("A"), ids=str)
def test_decoder_cases_are_the_models_that_reproduce_their_outputs(case, tmp_path):
    """Bit for bit those of `test_decoder`, as a training starts from them."""
    source = torch_files.of_case(case, tmp_path / "source")
    assert convert(source, tmp_path / "out") == 0
    config = case.info["config"]
    params, buffers = split(nnx.eval_shape(
        lambda: Decoder(golden.arch_config(config), config["seq_len"], parameter_keys(0))))[1:]
    params, buffers, _ = start.restore("load_pretrained_decoder", start.find(str(tmp_path / "out")),
                                       {"encoder": {}, "decoder": params}, {"decoder": buffers})
    assert_same((params["decoder"], buffers["decoder"]), golden.decoder(case)[1:])


@pytest.mark.parity
@pytest.mark.parametrize("case", parity.cases("C") + parity.cases("D"), ids=str)
def test_etrm_cases_round_trip(case, tmp_path):
    """By way of the models whose training `test_trajectories` compares with the golden one."""
    for file in sorted(path.name for path in case.folder.glob("*.pt")):
        source = torch_files.of_case(case, tmp_path / file, file)
        first = converted(source, tmp_path / f"{file}-converted", final_norm(case))[1:]
        assert_same(first, golden.etrm_parts(case, file)[1:])
        exported = tmp_path / f"{file}-exported" / file
        assert convert("--export", tmp_path / f"{file}-converted", exported) == 0
        assert_same_state(exported, {k.removeprefix(golden.PREFIX): t for k, t in case.state_dict(file).items()})
        assert_same(converted(exported, tmp_path / f"{file}-again")[1:], first)


# What is accepted


@pytest.mark.parametrize("prefix", ["", "model.", "_orig_mod.model.", "module._orig_mod.model."])
def test_prefixes_and_accounting(prefix, tmp_path):
    state = torch_files.decoder_state()
    source = torch_files.write(tmp_path / "source", state, prefix=prefix)
    manifest, params, buffers = converted(source, tmp_path / "out")
    assert {key.name: key.shape for key in manifest.keys} == {k: tuple(t.shape) for k, t in state.items()}
    assert [key.name for key in manifest.keys if key.skipped] == ["inner.puzzle_emb.weights"]
    used = [key.parameter for key in manifest.keys if key.parameter]
    assert len(set(used)) == len(used) == len(jax.tree.leaves((params, buffers)))
    assert manifest.arch == torch_files.ARCH and manifest.seq_len == torch_files.SEQ_LEN
    assert manifest.puzzle_embeddings == (20, 16) and not manifest.puzzle_embeddings_kept


def test_half_precision_weights_come_over_exactly(tmp_path):
    state = {name: tensor.to(torch.float16 if i % 2 else torch.bfloat16)
             for i, (name, tensor) in enumerate(torch_files.decoder_state().items())}
    manifest, params, buffers = converted(torch_files.write(tmp_path / "source", state), tmp_path / "out")
    assert {leaf.dtype for leaf in jax.tree.leaves((params, buffers))} == {np.dtype("float32")}
    np.testing.assert_array_equal(buffers["decoder"]["H_init"], state["inner.H_init"].float().numpy())
    np.testing.assert_array_equal(params["decoder"]["lm_head"]["kernel"],
                                  state["inner.lm_head.weight"].float().numpy().T)
    assert {key.dtype for key in manifest.keys} == {"float16", "bfloat16"}


def test_sizes_from_flags(tmp_path):
    arch = {"pos_encodings": "rope", "mlp_t": False}  # what the shapes show and the config does not say
    state = torch_files.decoder_state()
    del state["inner.embed_pos.embedding_weight"]
    source = torch_files.write(tmp_path / "source", state, config=arch)
    flags = ("--h-cycles", 2, "--l-cycles", 3, "--num-heads", 2, "--puzzle-emb-len", 4)
    manifest = converted(source, tmp_path / "out", *flags)[0]
    assert manifest.arch == torch_files.ARCH | {"pos_encodings": "rope", "expansion": 4.0}  # one inner width: 256
    assert manifest.seq_len is None


def test_official_is_known_by_the_table_of_puzzle_embeddings(tmp_path):
    state = torch_files.decoder_state()
    source = torch_files.write(tmp_path / "source", state)
    assert not converted(source, tmp_path / "small")[0].official
    assert converted(source, tmp_path / "said", "--official")[0].official
    state["inner.puzzle_emb.weights"] = torch.zeros(876_406, 1, dtype=torch.float16)
    manifest = converted(torch_files.write(tmp_path / "large", state), tmp_path / "out")[0]
    assert manifest.official and "876,406" in manifest.official_because

    assert convert("--export", tmp_path / "out", tmp_path / "exported" / "step_7") == 0
    again = converted(tmp_path / "exported" / "step_7", tmp_path / "again")[0]
    assert again.official and "step_7" in again.official_because


def test_runs_as_a_script(tmp_path):
    source = torch_files.write(tmp_path / "source", torch_files.decoder_state())
    command = [sys.executable, str(ROOT / "tools" / "convert_torch_ckpt.py"), str(source), "--dry-run"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "decoder.lm_head.kernel" in result.stdout and "dry run" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


# Verification


def test_verify_passes_and_fails(tmp_path, capsys, monkeypatch):
    source = torch_files.write(tmp_path / "source", torch_files.decoder_state())
    assert convert(source, tmp_path / "out", "--verify") == 0
    assert "logits" in capsys.readouterr().out
    monkeypatch.setattr(verify, "largest_differences", lambda *_: {"logits": 0.0, "z_H": 2e-4})
    assert "z_H differs from the PyTorch reference by 2.0e-04" in error(capsys, source, tmp_path / "bad", "--verify")
    assert not (tmp_path / "bad").exists()


def test_verify_finds_a_transposed_weight(tmp_path):
    state = torch_files.decoder_state()
    manifest, params, buffers = converted(torch_files.write(tmp_path / "source", state), tmp_path / "out")
    params["decoder"]["L_level"]["layers"][0]["mixer"]["o_proj"]["kernel"] = \
        params["decoder"]["L_level"]["layers"][0]["mixer"]["o_proj"]["kernel"].T
    differences = verify.largest_differences(manifest, params, buffers, state)
    assert differences["logits"] > verify.LIMIT and differences["z_H"] > verify.LIMIT
