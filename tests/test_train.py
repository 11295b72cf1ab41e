"""The whole loop: presets, exact resume, device counts, a run that diverges."""

import importlib
import json

import jax
import numpy as np
import pytest

from tests.preset_runs import PRESETS, preset, scalars
from trm_jax.dynamics.metrics import Mean, NonFiniteError, summarise
from trm_jax.models import decoder
from trm_jax.run.record import Origin
from trm_jax.run.saved import saved_steps
from trm_jax.train import train

COMMON_TAGS = {
    *(f"train/{name}" for name in (
        "loss", "lm_loss", "q_halt_loss", "accuracy", "exact_accuracy", "q_halt_accuracy", "lr", "halted_accuracy",
        "halted_exact_accuracy", "encoder_token_std", "encoder_cross_sample_var", "encoder_norm",
        "encoder_relative_var", "epoch", "samples")),
    *(f"eval/{name}" for name in ("encoder_norm", "encoder_token_std", "encoder_cross_sample_var",
                                  "encoder_within_task_var", "encoder_relative_var", "encoder_collapse_ratio")),
    "grad/encoder_norm", "grad/decoder_norm", "grad/total_norm", "eval/accuracy", "eval/exact_accuracy",
    "eval/q_halt_accuracy", "eval/steps", "eval/pass@1", "eval/pass@2", "perf/samples_per_s", "perf/step_ms",
    "perf/data_wait_ms", "perf/host_memory_gb",
}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains_and_logs(name, source, tmp_path, one_device, capsys):
    config = preset(name, source, max_steps=3, eval_interval=2)
    state = train(config, tmp_path / "run", Origin(name, "tiny", {"train.max_steps": 3}))
    assert int(state.step) == 3
    assert f"parameters: {'table' if config.encoder.type == 'embedding' else 'encoder'} " in capsys.readouterr().out
    tags = scalars(tmp_path / "run")
    scored = name != "t2"  # whose table knows no evaluation task
    assert {tag for tag in COMMON_TAGS if scored or not tag.startswith("eval/")} <= tags.keys()
    assert scored == any(tag.startswith("eval/") for tag in tags)
    assert ("train/steps" in tags) == ("train/halted_steps" in tags) == (config.mode.name == "original")
    assert ("train/encoder_grad_rows" in tags) == (config.mode.name == "original")
    for tag in ("train/kl_loss", "train/posterior_std", "train/posterior_mean_var", "eval/kl_loss"):
        assert (tag in tags) == ("variational" in config.encoder.type)
    assert all(np.isfinite(values).all() for values in tags.values())
    assert json.loads((tmp_path / "run" / "config.json").read_text())["mode"]["name"] == config.mode.name
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [recorded[key] for key in ("preset", "size", "overrides", "mode")] == \
        [name, "tiny", {"train.max_steps": 3}, config.mode.name]
    assert len(recorded["tasks"]["digest"]) == 16 and recorded["dtype"] == "float32" and recorded["versions"]["jax"]


@pytest.mark.parametrize("name", ["e1", "e2", "e3"])
def test_two_steps_of_an_encoder_at_its_own_tiny_size(name, tmp_path, one_device):
    """As ./launch.sh --config=configs/e1.py:tiny runs it, on the real tasks."""
    config = importlib.import_module(f"configs.{name}").get_config("tiny")
    config.train.update(max_steps=2, log_every_steps=1)
    train(config, tmp_path / "run")
    tags = scalars(tmp_path / "run")
    assert len(tags["train/loss"]) == 2 and np.isfinite(tags["train/loss"]).all()
    assert tags["grad/encoder_norm"][0] > 0 and tags["train/encoder_relative_var"][0] > 0


def flat(tree):
    return [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


@pytest.fixture
def eager(monkeypatch):
    """A fresh Q-head that wants to halt at once: exploration lets some rows go on while others start."""
    monkeypatch.setattr(decoder, "Q_HEAD_BIAS", 0.5)


def are_mixed(carry):
    """Whether some rows have just halted while others are under way."""
    return carry is None or 0 < int(carry.halted.sum()) < len(carry.halted)


@pytest.mark.parametrize("name", ["o1", "r1", "l1", "e3", "small", "t1"])
def test_stop_and_resume_is_bit_for_bit(name, source, tmp_path, one_device, eager):
    """2N steps equal N steps, stop, resume, N steps: parameters, optimiser, average, carry and next batch."""
    whole = train(preset(name, source, epochs=12, max_steps=6), tmp_path / "whole")
    assert are_mixed(train(preset(name, source, epochs=12, max_steps=3), tmp_path / "parts").carry)
    resumed = train(preset(name, source, epochs=12, max_steps=6), tmp_path / "parts")
    for (path, a), (_, b) in zip(flat(whole), flat(resumed), strict=True):
        assert a.tobytes() == b.tobytes(), path
    positions = [json.loads(next((tmp_path / run / "checkpoints" / "6" / "data").iterdir()).read_text())
                 for run in ("whole", "parts")]
    assert positions[0] == positions[1]


@pytest.mark.parametrize("name", ["o1", "r1", "l1", "e2", "e3", "small", "t1", "contrastive"])
def test_one_device_and_eight_train_the_same(name, source, tmp_path, monkeypatch, eager):
    """Also while some devices have a row that starts and others none, and with noise in the latent."""
    eight = train(preset(name, source, epochs=12, max_steps=5), tmp_path / "eight")
    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: first)
    one = train(preset(name, source, epochs=12, max_steps=5), tmp_path / "one")
    for (path, a), (_, b) in zip(flat((eight.params, eight.buffers)), flat((one.params, one.buffers)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5, err_msg=path)
    assert len(jax.tree.leaves(eight.params)[0].sharding.device_set) == 8
    assert len(jax.tree.leaves(one.params)[0].sharding.device_set) == 1
    if one.carry is not None:
        assert are_mixed(one.carry)
        for ours, theirs in zip(jax.tree.leaves((eight.carry.batch, eight.carry.steps, eight.carry.halted)),
                                jax.tree.leaves((one.carry.batch, one.carry.steps, one.carry.halted)), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    ours, theirs = scalars(tmp_path / "eight"), scalars(tmp_path / "one")
    # For their few parameters, these are allowed a sketch only of the contexts that eight devices compare.
    estimated = {"train/encoder_within_task_var", "train/encoder_collapse_ratio"} if name in ("e3", "t1") else set()
    for tag in ours.keys() - estimated:
        if not tag.startswith("perf/"):
            np.testing.assert_allclose(ours[tag], theirs[tag], rtol=1e-3, atol=1e-6, err_msg=tag)


def test_a_checkpoint_of_eight_devices_continues_on_one(source, tmp_path, monkeypatch):
    train(preset("o1", source, max_steps=2), tmp_path / "run")
    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: first)
    assert int(train(preset("o1", source, max_steps=3), tmp_path / "run").step) == 3


def test_a_number_that_is_not_finite_names_its_step_and_the_metrics():
    good = {"loss": Mean(np.float32(2), np.float32(1))}
    worse = {"loss": Mean(np.float32(np.nan), np.float32(1))}
    with pytest.raises(NonFiniteError, match="step 8: loss=nan"):
        summarise(7, [good, worse])
    assert summarise(7, [good, good]) == {"loss": 2.0}


def test_a_diverging_run_stops_and_names_the_last_good_checkpoint(source, tmp_path, one_device):
    config = preset("o1", source, max_steps=3)
    config.optim.lr = 1e30
    config.checkpoint.every_steps = 1
    with pytest.raises(NonFiniteError, match=r"step 2: .*last good checkpoint: .*checkpoints/1"):
        train(config, tmp_path / "run")
    assert saved_steps(tmp_path / "run") == [1]
