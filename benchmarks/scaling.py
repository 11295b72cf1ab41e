"""What more GPUs would give: efficiency from the counted bytes and operations of a preset's training step.

    python -m benchmarks.scaling [--config=configs/o1.py] [--starting=0.125] [--tflops=400]

Bytes are the parameters' (one float32 sum of the gradient per update), operations those of `operations`; the speeds of
links and GPUs are assumptions, written below. A sum of gradients begins when the last gradient is there, so that
nothing of it is hidden behind the computation; what every device does for all parameters is reading and writing them.
"""

import json
import math
import sys

import jax
from absl import app, flags
from flax import nnx
from ml_collections import config_flags

from trm_jax.models.etrm import ETRM, split
from trm_jax.models.layers import parameter_keys
from trm_jax.run import settings as settings_lib
from trm_jax.run.settings import Settings

NODE = 8  # GPUs that NVLink joins
NVLINK = 300e9  # bytes/s that an all-reduce of this size moves through each GPU of a node (450e9 in one direction)
NETWORKS = {"InfiniBand, 400 Gb/s a GPU": NODE * 40e9, "InfiniBand, 400 Gb/s a node": 40e9,
            "Ethernet, 100 Gb/s a node": 10e9, "Ethernet, 25 Gb/s a node": 2.5e9}  # bytes/s out of a node, in practice
LATENCY_S = 20e-6  # of each of the steps of a reduction between nodes
MEMORY = 2.5e12  # bytes/s of a GPU's own memory
PARAMETER_BYTES = 32  # read and written of each in an update: itself, gradient, two moments, average
DEMONSTRATIONS = 3.3  # of a task, on average
GPUS = (8, 64, 512)

_CONFIG = config_flags.DEFINE_config_file("config", "configs/o1.py", "Preset.")
_STARTING = flags.DEFINE_float("starting", 0.125, 'Share of the rows that start in a step, where encode="once".')
_TFLOPS = flags.DEFINE_float("tflops", 400.0, "10¹² operations a second that a GPU reaches in a step.")


def block(tokens: int, width: int, inner: int) -> int:
    """Operations (2 a product and sum) of one transformer block on one row."""
    return 2 * tokens * width * (4 * width + 3 * inner) + 4 * tokens**2 * width


def operations(settings: Settings, starting: float) -> float:
    """Operations of one update on one row: forward, backward at twice that, and the encoder's recomputation."""
    arch, encoder = settings.arch, settings.encoder
    inner = 256 * math.ceil(round(arch.expansion * arch.hidden_size * 2 / 3) / 256)
    stack = arch.L_layers * block(arch.puzzle_emb_len + settings.seq_len, arch.hidden_size, inner)
    cycle = arch.L_cycles + 1
    decoder = stack * ((arch.H_cycles - 1) * cycle + 3 * cycle)
    pair = encoder.num_layers * block(2 * settings.seq_len, arch.hidden_size, inner)
    encoded = starting if settings.mode.name == "original" and settings.mode.encode == "once" else 1.0
    return decoder + 4 * pair * DEMONSTRATIONS * encoded


def reduction_s(size: float, gpus: int, network: float) -> float:
    """Seconds to sum `size` bytes over GPUs: within each node, then each GPU its share between nodes, then back."""
    local = min(gpus, NODE)
    nodes = math.ceil(gpus / NODE)
    within = 2 * (local - 1) / local * size / NVLINK
    between = 2 * (nodes - 1) / nodes * size / network + 2 * math.log2(nodes) * LATENCY_S if nodes > 1 else 0.0
    return within + between + LATENCY_S


def main(_: list[str]) -> None:
    settings = settings_lib.from_dict(json.loads(_CONFIG.value.to_json()))
    _, params, _ = split(nnx.eval_shape(
        lambda: ETRM(settings.arch, settings.encoder, settings.seq_len, parameter_keys(0))))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    row = operations(settings, _STARTING.value)
    alone = PARAMETER_BYTES * count / MEMORY
    batch = settings.data.global_batch_size
    one = batch * row / (1e12 * _TFLOPS.value) + alone
    print(f"{count:,} parameters, {4 * count / 1e6:.1f} MB a sum of gradients, {row / 1e12:.3f} TFLOP a row and "
          f"update; {1e3 * one:.0f} ms an update of {batch} rows on one GPU\n")
    print(f"| rows | GPUs | rows a GPU | computing, ms | {' | '.join(NETWORKS)} |")
    print(f"|---|---|---|---|{'---|' * len(NETWORKS)}")
    for rows in (batch, 8 * batch, 64 * batch):
        for gpus in GPUS:
            if rows < gpus:
                continue
            busy = rows / gpus * row / (1e12 * _TFLOPS.value)
            ideal = (rows * row / (1e12 * _TFLOPS.value) + alone) / gpus
            taken = [busy + alone + reduction_s(4 * count, gpus, speed) for speed in NETWORKS.values()]
            where = "" if gpus > NODE else " (NVLink)"
            cells = [f"{ideal / seconds:.0%}{where}" for seconds in taken]
            print(f"| {rows:,} | {gpus} | {rows / gpus:g} | {1e3 * busy:.2f} | {' | '.join(cells)} |")
    sys.stdout.flush()


if __name__ == "__main__":
    app.run(main)
