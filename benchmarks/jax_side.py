"""Updates of trm_jax's own training step, on given batches with given rows starting."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.workload import training_step
from trm_jax.dynamics.act import Batch
from trm_jax.dynamics.state import Tree
from trm_jax.run.mesh import Mesh, by_rows, replicated, to_global
from trm_jax.run.settings import Settings


class JaxSide:
    """The step of `settings`, compiled for the devices of `mesh`, and its state.

    Attributes:
        compile_seconds: tracing, lowering and compiling.
        memory_gb: temporaries of a device, None on a CPU, where they can be seen while it runs.
    """

    name = "trm_jax"

    def __init__(self, settings: Settings, mesh: Mesh, batches: list[Batch]):
        self._mesh = mesh
        self._batches = [to_global(mesh, batch) for batch in batches]
        built = training_step(settings, mesh)
        self.state = built.init()
        start = time.perf_counter()
        self._step = built.step.lower(self.state, self._batches[0]).compile()
        self.compile_seconds = time.perf_counter() - start
        memory = self._step.memory_analysis()
        self.memory_gb = None if jax.default_backend() == "cpu" else memory.temp_size_in_bytes / 1e9

    @property
    def weights(self) -> tuple[Tree, Tree]:
        """Parameters and buffers as they stand, on the host."""
        return jax.device_get((self.state.params, self.state.buffers))

    def update(self, number: int, starting: np.ndarray) -> tuple[float, float]:
        """Update `number`, in which the rows that are `starting` (B,) take the batch's; seconds, and the mean loss."""
        if self.state.carry is not None:
            halted = jax.device_put(starting, by_rows(self._mesh))
            self.state = self.state.replace(carry=self.state.carry.replace(halted=halted))
        batch = self._batches[number % len(self._batches)]
        jax.block_until_ready(self.state)
        start = time.perf_counter()
        self.state, metrics = self._step(self.state, batch)
        jax.block_until_ready((self.state, metrics))
        return time.perf_counter() - start, float(metrics["loss"].sum / metrics["loss"].count)


def product_peak(mesh: Mesh, dtype: jnp.dtype, seconds: float = 1.0) -> float:
    """Operations a second of large matrix products on all devices: the best of those tried for so long."""
    size = 1536 if jax.default_backend() == "cpu" else 8192
    rows = jax.device_put(jnp.full((mesh.size * size, size), 0.5, dtype), by_rows(mesh))
    weights = jax.device_put(rows[:size], replicated(mesh))
    product = jax.jit(lambda a, b: a @ b, out_shardings=by_rows(mesh))
    jax.block_until_ready(product(rows, weights))
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(product(rows, weights))
        best = min(best, time.perf_counter() - start)
    return mesh.size * 2 * size**3 / best
