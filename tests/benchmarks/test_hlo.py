"""What is read off a compiled program: a written module with one of everything, and a real one."""

import functools
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec

from benchmarks.hlo import Program, Shape

MODULE = Path(__file__).with_name("module.hlo").read_text()


def test_a_written_module():
    program = Program(MODULE)
    assert program.fused_attention() == (1, 1)

    operations = Counter()
    for product in program.products():
        operations[product.dtype] += product.operations
    # The fusion runs by itself and as a branch; the loop's product six times; what nobody calls, never.
    assert operations == {"f32": 2 * (2 * 8 * 4 * 16), "bf16": 6 * (2 * 2 * 8 * 8 * 16)}

    assert [(c.kind, c.shapes, c.times, c.bytes) for c in program.collectives()] == [
        ("all-reduce", (Shape("f32", (10,)), Shape("bf16", (6,))), 6, 6 * (40 + 12)),
        ("all-gather", (Shape("s32", (16,)),), 1, 64),
        ("all-reduce", (Shape("f32", (5, 2)),), 1, 40),
    ]


def test_what_is_no_module_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        Program("nothing of the kind")


@pytest.mark.parametrize("dtype, dims, expected", [("f32", (3, 2), 24), ("bf16", (5,), 10), ("pred", (), 1),
                                                   ("s4", (3,), 2), ("f8e4m3fn", (7,), 7), ("c64", (2,), 16)])
def test_bytes_of_a_shape(dtype, dims, expected):
    assert Shape(dtype, dims).bytes == expected


def test_a_compiled_program():
    """Two devices, a scan over a product of known size, one sum over the devices."""
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec("rows")),
                       out_specs=PartitionSpec())
    def step(weights, x):
        looped, _ = jax.lax.scan(lambda x, _: (jnp.tanh(x @ weights), None), x, length=5)
        return jax.lax.psum(looped, "rows")

    program = Program(step.lower(jnp.ones((32, 32)), jnp.ones((64, 32))).compile().as_text())
    assert sum(product.operations for product in program.products()) == 5 * 2 * 32 * 32 * 32
    assert [(c.kind, c.bytes) for c in program.collectives()] == [("all-reduce", 32 * 32 * 4)]
