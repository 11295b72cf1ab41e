"""config.json over versions: a run of an older one is read with the values that it ran with."""

import json
import shutil

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
