"""What a run computes with, on machines that are not there: an attempt and a device are handed in."""

import dataclasses
from types import SimpleNamespace

import jax
import pytest

from configs import base, o1
from tests import tiny
from trm_jax.errors import ConfigError
from trm_jax.models.remat import REMAT
from trm_jax.run.machine import best_attention, fitting_remat, in_parts, kept_bytes, resolve
from trm_jax.run.mesh import data_mesh

GPU = SimpleNamespace(platform="gpu")
SETTINGS = tiny.settings(base.get_config())


def changed(source=SETTINGS, **fields):
    return dataclasses.replace(source, arch=dataclasses.replace(source.arch, **fields))


HALF = changed(forward_dtype="bfloat16")


def fails(error):
    def attempt(*_):
        raise error
    return attempt


def test_a_cpu_computes_in_float32_with_blocked_attention():
    found, log = resolve(changed(tiny.settings(o1.get_config("tiny")), remat="none"), data_mesh(jax.devices()[:2]))
    assert (found.arch.forward_dtype, found.arch.attention, found.arch.remat) == ("float32", "blocked", "none")
    assert log == ["activations in float32; attention: blocked; remat: none; the 16 rows of a device in 4 parts"]
    assert found.train.microbatches == 4


@pytest.mark.parametrize(("changes", "devices", "platform", "parts"), [
    ({}, 1, "gpu", 1),
    ({"train.microbatches": 3}, 2, "cpu", 3),
    ({}, 1, "cpu", 8), ({}, 8, "cpu", 1),  # 213 kB a row, of a MiB
    ({"data.global_batch_size": 34}, 2, "cpu", 17),  # which 4 rows do not divide
    ({"data.max_grid_size": 30}, 2, "cpu", 16),  # one row is more than a MiB
    ({"loss.contrastive_weight": 0.1}, 2, "cpu", 1)])
def test_a_cpu_takes_as_many_rows_at_once_as_its_cache_holds(changes, devices, platform, parts):
    config = o1.get_config("tiny")
    config.update_from_flattened_dict(changes)
    settings, said = in_parts(tiny.settings(config), devices, platform)
    assert settings.train.microbatches == parts
    assert said == (f"; the {config.data.global_batch_size // devices} rows of a device in {parts} parts"
                    if parts not in (1, 3) else "")


def test_what_is_named_is_taken_and_evaluation_asks_nothing_of_a_backward_pass():
    found, log = resolve(changed(forward_dtype="bfloat16", attention="xla"), data_mesh(jax.devices()[:1]),
                         training=False)
    assert (found.arch.forward_dtype, found.arch.attention, found.arch.remat) == ("bfloat16", "xla", "auto")
    assert log == ["activations in bfloat16; attention: xla"]


@pytest.mark.parametrize(("attempt", "settings", "expected"), [
    (lambda *_: None, HALF, ("cudnn", "")),
    (lambda *_: None, SETTINGS, ("xla", "not cudnn: it takes half precision only, and activations are in float32")),
    (fails(RuntimeError("cuDNN is not detected.")), HALF, ("xla", "not cudnn: cuDNN is not detected.")),
    (fails(NotImplementedError("The head dim must be <= 128\nmore")), HALF,
     ("xla", "not cudnn: The head dim must be <= 128")),
    (fails(ValueError()), HALF, ("xla", "not cudnn: ValueError"))])
def test_a_gpu_takes_the_fused_attention_if_it_runs(attempt, settings, expected):
    assert best_attention(settings, GPU, attempt) == expected


def test_other_accelerators_take_the_plain_one():
    assert best_attention(HALF, SimpleNamespace(platform="tpu")) == ("xla", "")


def test_the_fused_attention_by_name_is_refused_in_one_line_where_it_does_not_run():
    for settings in (changed(attention="cudnn"), changed(HALF, attention="cudnn")):
        with pytest.raises(ConfigError, match=r"^arch.attention='cudnn' does not run here: [^\n]+$"):
            resolve(settings, data_mesh(jax.devices()[:1]))


def test_the_fastest_remat_that_fits_is_taken():
    small, rows = changed(tiny.settings(o1.get_config("tiny")), forward_dtype="bfloat16"), 4
    kept = {how: kept_bytes(changed(small, remat=how).arch, small.encoder, small.seq_len, rows) for how in REMAT}
    assert kept["none"] > kept["dots"] > kept["full"] > 0
    for how, available in (("none", 1e15), ("dots", kept["dots"] / 0.85 + 1), ("full", kept["full"]), ("full", 1)):
        assert fitting_remat(small, rows, int(available))[0] == how
    assert "none would keep" in fitting_remat(small, rows, 1)[1]
