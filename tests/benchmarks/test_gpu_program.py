"""The program for a GPU: its command line without CUDA packages, and what a person reads of it."""

import json

import jax
import pytest

from benchmarks import gpu_step, gpu_target
from benchmarks.hlo import Collective, Product, Shape
from trm_jax.errors import ConfigError

HALF, FULL = Shape("bf16", (8, 8)), Shape("f32", (4, 2))
PROGRAM = gpu_step.GpuProgram(
    remat="dots (none would keep 80.0 GB)",
    arguments=2 * 10**9, temporaries=17 * 10**9, outputs=10**9, attention=(12, 6),
    products=[Product((HALF, HALF), HALF, 999_000), Product((FULL, FULL), FULL, 600), Product((FULL, FULL), FULL, 400)],
    collectives=[Collective("all-reduce", (FULL,), 4)], gradient=32, updates=4)


def test_without_cuda_packages_one_line_says_what_to_install(monkeypatch):
    def missing(*_, **__):
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setattr(gpu_target.topologies, "get_topology_desc", missing)
    with pytest.raises(ConfigError, match=r"^[^\n]*pip install -e '\.\[cuda12\]'[^\n]*$"):
        gpu_target.devices(1, 80)


def test_the_description_of_the_card_gets_the_memory_asked_for(monkeypatch):
    described = {}
    monkeypatch.setattr(gpu_target.topologies, "get_topology_desc",
                        lambda *_, **given: described.update(given) or type("Topology", (), {"devices": []}))
    gpu_target.devices(4, 24)
    assert "device_memory_size: 24000000000 " in described["target_config"] and described["topology"] == "1x4x1"


@pytest.mark.parametrize("pool_gb, fits", [(20.0, True), (19.9, False)])
def test_json(pool_gb, fits):
    plain = json.loads(json.dumps(PROGRAM.plain(pool_gb)))
    assert plain["remat"] == "dots" and plain["fits"] is fits
    assert plain["temporaries_gb"] == 17 and plain["arguments_gb"] == 2
    assert plain["fused_attention_calls"] == 18 and plain["gradient_bytes"] == plain["collective_bytes"] == 32
    assert plain["bfloat16_operations"] == 999_000 and plain["other_operations"] == {"f32": 1000}


def test_what_a_person_reads():
    text = gpu_step.report(PROGRAM, 18.0)
    assert "DOES NOT FIT the 18.0 GB" in text and "12 calls forward, 6 backward" in text
    assert "99.900% of it on bfloat16" in text and "f32[4,2] · f32[4,2] → f32[4,2]" in text
    assert "32 bytes an update; the gradient has 32" in text


def test_the_checks_of_jax_hear_of_a_card_only_within():
    asked = gpu_target.fused_attention.check_cudnn_version
    shape = jax.ShapeDtypeStruct((2, 8, 2, 12), jax.numpy.bfloat16)

    def attend(q):
        return jax.nn.dot_product_attention(q, q, q, implementation="cudnn")

    with gpu_target.as_if_present(), pytest.raises(NotImplementedError, match="multiple of 8"):
        jax.eval_shape(attend, shape)
    assert gpu_target.fused_attention.check_cudnn_version is asked
