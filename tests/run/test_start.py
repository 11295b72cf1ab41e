import dataclasses
import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import torch_files
from tests.torch_files import SEQ_LEN, converted
from trm_jax.errors import ConfigError
from trm_jax.models.decoder import ArchConfig
from trm_jax.models.encoders import EncoderConfig
from trm_jax.models.etrm import ETRM, split
from trm_jax.models.layers import parameter_keys
from trm_jax.run.ancestry import held_out_note
from trm_jax.run.pretrained import MANIFEST_FILE, read_manifest
from trm_jax.run.start import find, restore, starting_point

ARCH = ArchConfig(**torch_files.ARCH, forward_dtype="auto", attention="auto", remat="auto",
                  halt_max_steps=16, halt_exploration_prob=0.5)
ENCODER = EncoderConfig("lpn_standard", num_layers=1, pooling_method="mean", set_layers=1, norm_style="pre",
                        layer_scale_init=0.0, final_norm=True, embedding_width=0, max_demos=2)


@pytest.fixture(scope="module")
def fresh():
    shapes = split(nnx.eval_shape(lambda: ETRM(ARCH, ENCODER, SEQ_LEN, parameter_keys(0))))[1:]
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A converted TRM."""
    root = tmp_path_factory.mktemp("trm")
    converted(torch_files.write(root / "source", torch_files.decoder_state()), root / "out")
    return root / "out"


def restore_decoder(path, arch, seq_len, params, buffers):
    train = SimpleNamespace(init_from="", load_pretrained_decoder=str(path))
    field, source = starting_point(SimpleNamespace(arch=arch, encoder=ENCODER, seq_len=seq_len, train=train))
    return restore(field, source, params, buffers)


def changed(folder, copy, **values):
    """A copy of the folder's manifest with other values."""
    copy.mkdir()
    manifest = json.loads((folder / MANIFEST_FILE).read_text()) | values
    (copy / MANIFEST_FILE).write_text(json.dumps(manifest))
    return copy


def test_decoder_is_replaced_and_the_encoder_is_not(fresh, folder):
    params, buffers, log = restore_decoder(folder, ARCH, SEQ_LEN, *fresh)
    state = torch_files.decoder_state()
    np.testing.assert_array_equal(params["decoder"]["embed_pos"], state["inner.embed_pos.embedding_weight"])
    np.testing.assert_array_equal(buffers["decoder"]["L_init"], state["inner.L_init"].float())
    assert params["encoder"] is fresh[0]["encoder"]
    assert jax.tree.structure((params, buffers)) == jax.tree.structure(tuple(fresh))
    for restored, leaf in zip(jax.tree.leaves(params), jax.tree.leaves(fresh[0]), strict=True):
        assert (restored.shape, restored.dtype, restored.sharding) == (leaf.shape, leaf.dtype, leaf.sharding)

    manifest = read_manifest(folder)
    decoder, encoder = (sum(leaf.size for leaf in jax.tree.leaves(params[part])) for part in ("decoder", "encoder"))
    assert f"{decoder:,} parameters" in log[0] and manifest.sha256 in log[0] and "step_7" in log[0]
    assert f"{encoder:,} parameters, initialised fresh" in log[1]
    assert log[2:] == ["nothing says whether the converted checkpoint step_7 was trained on evaluation tasks"]


def test_of_an_etrm_the_decoder_is_taken(fresh, tmp_path):
    _, theirs, _ = converted(torch_files.write(tmp_path / "source", torch_files.etrm_state()), tmp_path / "out")
    params, _, log = restore_decoder(tmp_path / "out", ARCH, SEQ_LEN, *fresh)
    np.testing.assert_array_equal(params["decoder"]["lm_head"]["kernel"], theirs["decoder"]["lm_head"]["kernel"])
    assert params["encoder"] is fresh[0]["encoder"]
    assert "the standard encoder of the converted checkpoint step_7 was left out" in log[1]


@pytest.mark.parametrize(("name", "value", "flag"), [
    ("L_cycles", 6, "--config.arch.L_cycles=3"),
    ("H_cycles", 3, "--config.arch.H_cycles=2"),
    ("num_heads", 4, "--config.arch.num_heads=2"),
    ("pos_encodings", "rope", "--config.arch.pos_encodings=learned"),
])
def test_another_architecture_is_refused(name, value, flag, fresh, folder):
    arch = dataclasses.replace(ARCH, **{name: value})
    with pytest.raises(ConfigError) as error:
        restore_decoder(folder, arch, SEQ_LEN, *fresh)
    message = str(error.value)
    assert f"arch.{name} is {value!r} in the config and {torch_files.ARCH[name]!r} in the checkpoint" in message
    assert flag in message and "\n" not in message


def test_bytes_that_are_not_those_written_are_refused(fresh, folder, tmp_path):
    shutil.copytree(folder, copy := tmp_path / "copy")
    weights = max(copy.glob("decoder/ocdbt.process_0/d/*"), key=lambda file: file.stat().st_size)
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1  # read, it would be another model
    weights.write_bytes(content)
    with pytest.raises(ConfigError, match=r"copy/decoder are missing or damaged: .* does not hold what was written"):
        restore_decoder(copy, ARCH, SEQ_LEN, *fresh)


def test_another_canvas_is_refused(fresh, folder):
    with pytest.raises(ConfigError, match=r"16 tokens in the config and 9 .* --config\.data\.max_grid_size=3"):
        restore_decoder(folder, ARCH, 16, *fresh)


def test_a_pytorch_file_is_answered_with_the_command_that_converts_it(fresh, folder):
    path = folder.parent / "source" / "step_7"
    with pytest.raises(ConfigError) as error:
        restore_decoder(path, ARCH, SEQ_LEN, *fresh)
    assert f"`python tools/convert_torch_ckpt.py {path} {path}_jax`" in str(error.value)


@pytest.mark.parametrize(("content", "message"), [
    (None, "no converted checkpoint at .*: the folder has no manifest.json"),
    ("{", "cannot be read"),
    ("{}", "cannot be read"),
    ('{"format": 99}', "has format 99, this version reads 1"),
])
def test_folders_that_hold_no_converted_checkpoint(content, message, fresh, tmp_path):
    if content is not None:
        (tmp_path / MANIFEST_FILE).write_text(content)
    with pytest.raises(ConfigError, match=message):
        restore_decoder(tmp_path, ARCH, SEQ_LEN, *fresh)
    with pytest.raises(ConfigError, match="there is no such folder"):
        restore_decoder(tmp_path / "nothing", ARCH, SEQ_LEN, *fresh)


def test_held_out_scores_carry_a_note_for_official_checkpoints_only(folder, tmp_path):
    assert held_out_note(find(str(folder)).descent) is None
    official = changed(folder, tmp_path / "official", official=True, official_because="its table")
    assert "evaluation tasks' demonstrations (its table)" in held_out_note(find(str(official)).descent)
