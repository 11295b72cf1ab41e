"""▶ What a preset's training step asks of an NVIDIA GPU, found out on a machine that has none.

    python -m benchmarks.gpu_program --config=configs/o1.py [--rows=256] [--devices=4] [--memory-gb=80] [--json]

Compiles the step for the H100 (needs the `cuda12` extra, no GPU; about a minute) and says how much memory it takes on each
device and whether that fits, which of its matrix products are not in bfloat16, whether its attention is cuDNN's fused
one, and what the devices send each other. Fields are set as in training: --config.SECTION.FIELD=VALUE.

--table compiles the presets named by --presets at several settings and prints which of them fits which card.
"""

import dataclasses
import json
import os
import sys
from collections import Counter

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA tells of what it cannot make fit; so does this program

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from benchmarks.gpu_target import as_if_present, devices
from benchmarks.hlo import Collective, Product, Program
from benchmarks.workload import parse_flags, settings_of, training_step
from trm_jax.errors import ConfigError
from trm_jax.run.mesh import data_mesh

_CONFIG = config_flags.DEFINE_config_file("config", None, "Preset whose training step is compiled.")
_ROWS = flags.DEFINE_integer("rows", None, "Rows of a batch over all devices; the preset's where none are given.",
                             lower_bound=1)
_DEVICES = flags.DEFINE_integer("devices", 1, "Cards that share the batch.", lower_bound=1)
_MEMORY_GB = flags.DEFINE_float("memory-gb", 80, "Memory of a card, in 10⁹ bytes.", lower_bound=1)
_FRACTION = flags.DEFINE_float("memory-fraction", 0.75, "Share of it that JAX takes: XLA_CLIENT_MEM_FRACTION.",
                               lower_bound=0.01, upper_bound=1)
_JSON = flags.DEFINE_bool("json", False, "One line of JSON.")


@dataclasses.dataclass(frozen=True)
class GpuProgram:
    """A compiled training step. Bytes are of one device.

    Attributes:
        arguments: state and batch; the new state takes the old one's place.
        temporaries: everything that lives only while the step runs.
        outputs: what does not take the place of an argument.
        attention: calls of the fused attention that stand in the program, forward and backward.
        products: matrix products.
        collectives: exchanges between devices.
        gradient: bytes of the trained parameters' gradient in float32.
        updates: optimiser updates of one step.
    """

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
    if config.arch.forward_dtype == "auto":
        config.arch.forward_dtype = "bfloat16"
    return config


def compile_step(config: ConfigDict, count: int, memory_gb: float) -> GpuProgram:
    """The training step of `config` on `count` cards of so much memory.

    Raises:
        ConfigError: the config cannot be run, or the CUDA packages are missing.
    """
    settings = settings_of(for_gpu(config))
    cards = devices(count, memory_gb)
    backend = jax.default_backend
    jax.default_backend = lambda: "gpu"
    try:
        with as_if_present():
            step = training_step(settings, data_mesh(list(cards)))
            compiled = step.call.lower(step.state, step.batch).compile()
    finally:
        jax.default_backend = backend
    memory, program = compiled.memory_analysis(), Program(compiled.as_text())
    return GpuProgram(
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
    lines = [f"arguments {plain['arguments_gb']:.2f} GB, temporaries {plain['temporaries_gb']:.2f} GB a device: "
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


def main(_: list[str]) -> None:
    jax.config.update("jax_platforms", "cpu")  # a GPU that is there stays untouched
    config, pool_gb = ConfigDict(_CONFIG.value), _FRACTION.value * _MEMORY_GB.value
    if _ROWS.value is not None:
        config.data.global_batch_size = _ROWS.value
    try:
        found = compile_step(config, _DEVICES.value, _MEMORY_GB.value)
    except (ConfigError, NotImplementedError) as error:
        sys.exit(f"error: {error}")
    if _JSON.value:
        print(json.dumps(found.plain(pool_gb)))
        return
    name = config_flags.get_config_filename(flags.FLAGS["config"])
    print(f"{name}, {config.data.global_batch_size} rows on {_DEVICES.value} × {_MEMORY_GB.value:g} GB "
          f"(compiled for the H100, jax {jax.__version__})")
    print(report(found, pool_gb))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
