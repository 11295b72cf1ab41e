import json

import jax
import numpy as np
import pytest

from tests import torch_files, trained_run
from tests.torch_files import assert_same_state, convert, converted, error
from trm_jax.evaluation.trained import load_trained
from trm_jax.run.ancestry import ANCESTRY_FILE
from trm_jax.run.mesh import data_mesh
from trm_jax.run.pretrained import PUZZLE_EMBEDDINGS_FILE


def test_an_etrm_keeps_its_encoder_and_the_types_of_its_tensors(tmp_path):
    state = torch_files.etrm_state()
    for name in ("encoder.set_encoder.query_tokens", "encoder.grid_encoder.pool_query"):
        state[name] = state[name].bfloat16()
    source = torch_files.write(tmp_path / "source", state)
    manifest, params, _ = converted(source, tmp_path / "out")
    assert manifest.encoder == torch_files.ENCODER and set(params) == {"decoder", "encoder"}
    assert convert("--export", tmp_path / "out", tmp_path / "step_7") == 0
    assert_same_state(tmp_path / "step_7", state)


def test_kept_puzzle_embeddings_go_back(tmp_path):
    state = torch_files.decoder_state()
    source = torch_files.write(tmp_path / "source", state)
    assert convert(source, tmp_path / "out", "--keep-puzzle-embeddings") == 0
    kept = np.load(tmp_path / "out" / PUZZLE_EMBEDDINGS_FILE)
    np.testing.assert_array_equal(kept, state["inner.puzzle_emb.weights"].numpy())
    assert convert("--export", tmp_path / "out", tmp_path / "step_7") == 0
    assert_same_state(tmp_path / "step_7", state)


@pytest.mark.parametrize("note", [None, "saw the demonstrations"])
def test_a_run_is_exported_with_the_weights_it_is_evaluated_with(note, tmp_path):
    trained_run.write_tasks(tmp_path / "tasks")
    workdir = trained_run.write_run(tmp_path / "run", tmp_path / "tasks",
                                    {"train.load_pretrained_decoder": "somewhere/trm"})
    (workdir / ANCESTRY_FILE).write_text(json.dumps({"held_out_note": note}))
    before = sorted(path.name for path in workdir.rglob("*"))
    exported = tmp_path / "exported" / "step_7"
    assert convert("--export", workdir, exported, "--step", trained_run.STEP) == 0
    assert sorted(path.name for path in workdir.rglob("*")) == before

    manifest, params, buffers = converted(exported, tmp_path / "out")
    trained = load_trained(workdir, data_mesh())
    jax.tree.map(np.testing.assert_array_equal, (params, buffers), (trained.params, trained.buffers))
    assert manifest.arch["H_cycles"] == trained.settings.arch.H_cycles
    assert manifest.official == (note is not None)


def test_files_are_replaced_with_force_only(tmp_path, capsys):
    source = torch_files.write(tmp_path / "source", torch_files.decoder_state())
    assert convert(source, tmp_path / "out") == 0
    assert convert("--export", tmp_path / "out", tmp_path / "step_7") == 0
    assert "exists" in error(capsys, "--export", tmp_path / "out", tmp_path / "step_7")
    torch_files.write_config(tmp_path, torch_files.ARCH)
    assert "describes another model" in error(capsys, "--export", tmp_path / "out", tmp_path / "step_8")
    assert not (tmp_path / "step_8").exists()
    assert convert("--export", tmp_path / "out", tmp_path / "step_8", "--force") == 0


def test_nothing_to_export(tmp_path, capsys):
    assert "there is no such folder" in error(capsys, "--export", tmp_path / "nothing", tmp_path / "step_7")
