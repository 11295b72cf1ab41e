"""An NVIDIA GPU to compile for on a machine that has none.

XLA's GPU compiler, which comes with the `cuda12` and `cuda13` extras, works from a description of the card. Nothing
is run, so that nothing is timed either: where a kernel is picked by trial, the compiler takes its default.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import jax
from jax._src.cudnn import fused_attention_stablehlo as fused_attention
from jax.experimental import topologies

from trm_jax.errors import ConfigError

CARD = Path(__file__).with_name("h100.txtpb")
COMPUTE_CAPABILITY = (9, 0)  # what `as_if_present` answers; the card's file says the same
CUDNN_VERSION = 91000


def devices(count: int, memory_gb: float) -> list[jax.Device]:
    """H100s to compile for, with so much memory (10⁹ bytes); XLA recomputes some of what does not fit 80 % of it.

    Raises:
        ConfigError: the CUDA packages are missing.
    """
    jax.devices()  # finds the plugins
    card = re.sub(r"device_memory_size: \d+", f"device_memory_size: {round(memory_gb * 1e9)}", CARD.read_text())
    try:
        topology = topologies.get_topology_desc("", platform="cuda", target_config=card, topology=f"1x{count}x1")
    except NotImplementedError:
        raise ConfigError("compiling for a GPU needs JAX's CUDA packages (no GPU): "
                          "pip install -e '.[cuda12]' -c constraints.txt") from None
    return topology.devices


@contextlib.contextmanager
def as_if_present() -> Iterator[None]:
    """JAX's checks of the fused attention hear of cuDNN and a card; every check of shapes and types stays as it is."""
    answers = {
        "check_cudnn_version": lambda: CUDNN_VERSION,
        "check_compute_capability": lambda least: COMPUTE_CAPABILITY >= _version(least),
        "is_cuda_compute_capability_equal": lambda capability: COMPUTE_CAPABILITY == _version(capability),
    }
    asked = {name: getattr(fused_attention, name) for name in answers}
    try:
        for name, answer in answers.items():
            setattr(fused_attention, name, answer)
        yield
    finally:
        for name, original in asked.items():
            setattr(fused_attention, name, original)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
