"""A preset's training step compiled for an NVIDIA GPU: what it holds, computes and sends."""

import dataclasses
from collections import Counter

import jax
from ml_collections import ConfigDict

from benchmarks.gpu_target import as_if_present, devices
from benchmarks.hlo import Collective, Product, Program
from benchmarks.workload import settings_of, training_step
from trm_jax.run.machine import with_remat
from trm_jax.run.mesh import data_mesh


@dataclasses.dataclass(frozen=True)
class GpuProgram:
    """A compiled training step. Bytes are of one device.

    Attributes:
        remat: how it recomputes, and why.
        arguments: state and batch; the new state takes the old one's place.
        temporaries: everything that lives only while the step runs.
        outputs: what does not take the place of an argument.
        attention: calls of the fused attention that stand in the program, forward and backward.
        products: matrix products.
        collectives: exchanges between devices.
        gradient: bytes of the trained parameters' gradient in float32.
        updates: optimiser updates of one step.
    """

    remat: str
    arguments: int
    temporaries: int
    outputs: int
    attention: tuple[int, int]
    products: list[Product]
    collectives: list[Collective]
    gradient: int
    updates: int

    @property
    def needed_gb(self) -> float:
        """What a device must hold at once, 10⁹ bytes."""
        return (self.arguments + self.temporaries + self.outputs) / 1e9

    def operations(self) -> Counter[str]:
        """Type of the operands → operations of matrix products on one device."""
        found: Counter[str] = Counter()
        for product in self.products:
            found[product.dtype] += product.operations
        return found

    def plain(self, pool_gb: float) -> dict[str, object]:
        """What --json prints; collectives are of one optimiser update."""
        operations = self.operations()
        half = operations.pop("bf16", 0)
        return {
            "remat": self.remat.partition(" ")[0],
            "temporaries_gb": round(self.temporaries / 1e9, 3),
            "arguments_gb": round(self.arguments / 1e9, 3),
            "needed_gb": round(self.needed_gb, 3),
            "pool_gb": pool_gb,
            "fits": self.needed_gb <= pool_gb,
            "fused_attention_calls": sum(self.attention),
            "fused_attention_forward": self.attention[0],
            "fused_attention_backward": self.attention[1],
            "bfloat16_operations": half,
            "other_operations": dict(operations),
            "collective_bytes": sum(c.bytes for c in self.collectives) // self.updates,
            "collectives": [{"kind": c.kind, "arrays": [str(s) for s in c.shapes], "times": c.times, "bytes": c.bytes}
                            for c in self.collectives],
            "gradient_bytes": self.gradient,
        }


def for_gpu(config: ConfigDict) -> ConfigDict:
    """A preset's config as a GPU takes it, where it says `auto`."""
    config = ConfigDict(config)
    for field, value in (("forward_dtype", "bfloat16"), ("attention", "cudnn")):
        if config.arch[field] == "auto":
            config.arch[field] = value
    return config


def compile_step(config: ConfigDict, count: int, memory_gb: float, pool_gb: float) -> GpuProgram:
    """The training step of `config` on `count` cards of so much memory, of which JAX takes `pool_gb`.

    Raises:
        ConfigError: the config cannot be run, or the CUDA packages are missing.
    """
    cards = devices(count, memory_gb)
    with as_if_present():
        settings, remat = with_remat(settings_of(for_gpu(config)), count, round(pool_gb * 1e9))
        step = training_step(settings, data_mesh(list(cards)))
        compiled = step.step.lower(step.state, step.batch).compile()
    memory, program = compiled.memory_analysis(), Program(compiled.as_text())
    return GpuProgram(
        remat=remat,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        attention=program.fused_attention(),
        products=program.products(),
        collectives=program.collectives(),
        gradient=sum(4 * leaf.size for leaf in jax.tree.leaves(step.state.params)),
        updates=settings.mode.num_act_steps if settings.mode.name == "online" else 1,
    )


def report(found: GpuProgram, pool_gb: float) -> str:
    """What a person reads of a program."""
    plain = found.plain(pool_gb)
    forward, backward = found.attention
    lines = [f"remat: {found.remat}",
             f"arguments {plain['arguments_gb']:.2f} GB, temporaries {plain['temporaries_gb']:.2f} GB a device: "
             f"{'fits' if plain['fits'] else 'DOES NOT FIT'} the {pool_gb:.1f} GB that JAX takes of the card",
             f"fused attention: {forward} calls forward, {backward} backward"]
    operations = found.operations()
    total = sum(operations.values())
    lines.append(f"matrix products: {total / 1e12:.2f} TFLOP a device and step, as if every branch ran; "
                 f"{operations['bf16'] / total:.3%} of it on bfloat16")
    others: Counter[str] = Counter()
    for product in found.products:
        if product.dtype != "bf16":
            others[f"{product.operands[0]} · {product.operands[1]} → {product.result}"] += product.operations
    lines += [f"  {what}: {count / 1e9:.4f} GFLOP" for what, count in others.most_common()]
    lines.append(f"between devices: {plain['collective_bytes']:,} bytes an update; the gradient has {found.gradient:,}")
    lines += [f"  {c.kind} {', '.join(map(str, c.shapes[:4]))}{' …' if len(c.shapes) > 4 else ''}: {c.bytes:,} bytes"
              f"{f' in {c.times}' if c.times > 1 else ''}" for c in found.collectives]
    return "\n".join(lines)
