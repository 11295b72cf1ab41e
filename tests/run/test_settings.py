"""Settings are checked field by field; a run of an older version is read with the values that it ran with."""

import json
import math
import shutil
from pathlib import Path

import pytest

from tests.preset_runs import preset
from trm_jax.data.arc.tasks import TaskError
from trm_jax.errors import ConfigError
from trm_jax.run import config_file, settings
from trm_jax.run.fields import check_kind, kinds
from trm_jax.train import train


def written(workdir):
    return json.loads((workdir / config_file.CONFIG_FILE).read_text())


@pytest.fixture
def older(begun, tmp_path, one_device):
    """The run as a version left it that knew none of the fields of MEANT, and no formats."""
    workdir = shutil.copytree(begun, tmp_path / "run")
    config = written(workdir)
    assert config.pop("format") == config_file.FORMAT
    for name in settings.MEANT:
        section, field = name.split(".")
        del config[section][field]
    (workdir / config_file.CONFIG_FILE).write_text(json.dumps(config))
    return workdir


def test_an_older_run_is_read_with_what_it_meant_and_continues(older, source):
    found = config_file.load(older)
    for name, value in settings.MEANT.items():
        section, field = name.split(".")
        assert getattr(getattr(found, section), field) == value, name
    assert int(train(preset("o1", source, max_steps=2), older).step) == 2
    assert written(older)["format"] == config_file.FORMAT and written(older)["encoder"]["final_norm"] is True


def test_an_older_run_refuses_a_new_field_that_would_change_it(older, source):
    config = preset("o1", source, max_steps=2)
    config.encoder.final_norm = False
    with pytest.raises((ConfigError, TaskError), match=r"another model \(encoder.final_norm: True there, False here\)"):
        train(config, older)


def test_every_meant_value_is_one_of_its_field():
    for name, value in settings.MEANT.items():
        section, field = name.split(".")
        check_kind(name, value, kinds(settings.SECTIONS[section])[field])


@pytest.mark.parametrize("there", [config_file.FORMAT + 1, "2", True])
def test_a_newer_format_is_one_line_that_says_what_to_do(older, source, there, tmp_path):
    workdir = shutil.copytree(older, tmp_path / "newer")
    (workdir / config_file.CONFIG_FILE).write_text(json.dumps({"format": there} | written(workdir)))
    for use in (config_file.load, lambda folder: train(preset("o1", source, max_steps=2), folder)):
        with pytest.raises(ConfigError, match=rf"has format {there!r}, this version of trm_jax reads up to"):
            use(workdir)


def plain(source: Path, name: str = "o1") -> dict:
    return json.loads(preset(name, source).to_json())


def refusal(source, name, value):
    """What is said of a config in which one `section.field` is changed."""
    section, field = name.split(".")
    config = plain(source)
    config[section][field] = value
    with pytest.raises(ConfigError) as error:
        settings.from_dict(config)
    return str(error.value)


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
    ("optim.freeze_decoder_steps", 10**12, "must be at least 0 and below 2147483648"),
    ("data.max_grid_size", 10**400, "must be at least 1 and at most 30"),
    ("optim.beta2", 1.0, "must be at least 0 and below 1"),
    ("loss.kl_weight", math.nan, "must be finite and at least 0"),
    ("loss.kl_weight", math.inf, "must be finite and at least 0"),
    ("encoder.layer_scale_init", -0.1, "must be at least 0"),
    ("train.epochs", 0, "must be at least 1"),
    ("checkpoint.keep", 0, "must be at least 1"),
    ("eval.batch_size", 0, "must be at least 1"),
])
def test_a_number_out_of_bounds_names_field_value_and_bounds(name, value, message, source):
    assert refusal(source, name, value) == f"{name}={value} {message}"


@pytest.mark.parametrize(("name", "value", "message"), [
    ("eval.pass_ks", ["best"], "eval.pass_ks=['best'] must be whole numbers, separated by commas"),
    ("optim.lr", "abc", "optim.lr='abc' must be a number"),
    ("train.seed", 1.5, "train.seed=1.5 must be a whole number"),
    ("train.seed", True, "train.seed=True must be a whole number"),
    ("data.augment", 1, "data.augment=1 must be true or false"),
    ("data.source", None, "data.source=None must be a text"),
])
def test_a_value_of_another_type_names_the_field(name, value, message, source):
    assert refusal(source, name, value) == message


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
