"""Processes, devices and shardings: the one place that knows the mesh axis.

All devices form one data axis. Parameters, moments and averages are on every device; batches and the carry are
split by rows.
"""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from trm_jax.dynamics.state import TrainState
from trm_jax.errors import ConfigError

Tree = Any
AXIS = "data"


def start_processes() -> None:
    """Joins the other processes of a run that was started as several (JAX_COORDINATOR_ADDRESS is set)."""
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        jax.distributed.initialize(
            num_processes=int(os.environ["JAX_NUM_PROCESSES"]), process_id=int(os.environ["JAX_PROCESS_ID"]))


def data_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """One axis over `devices` (all of every process by default)."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def check_divides(field: str, rows: int, mesh: Mesh) -> None:
    """Raises ConfigError unless a batch of `rows` rows divides by the number of devices."""
    if rows < 1 or rows % mesh.size:
        raise ConfigError(f"{field}={rows} must be a positive multiple of the number of devices, {mesh.size}")


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_rows(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def state_shardings(mesh: Mesh, state: TrainState) -> TrainState:
    """The carry by rows, everything else on every device; a tree of shardings with the state's structure."""
    shardings = jax.tree.map(lambda _: replicated(mesh), state)
    return shardings.replace(carry=jax.tree.map(lambda _: by_rows(mesh), state.carry))


def to_global(mesh: Mesh, local: Tree) -> Tree:
    """This process's share of the rows (numpy) → arrays of the global batch, split over the devices."""
    sharding = by_rows(mesh)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, np.asarray(rows)), local)


def to_hosts(tree: Tree) -> Tree:
    """Global arrays, split or replicated → the whole of each as numpy, on every process."""
    return multihost_utils.process_allgather(tree, tiled=True) if jax.process_count() > 1 else jax.device_get(tree)


def per_shard(mesh: Mesh) -> Callable[[Callable[..., Tree]], Callable[..., Tree]]:
    """A wrapper that runs f(weights, *rows) on each device's rows by itself; `weights` are on every device.

    The weights are marked as varying before f sees them, so that the sum of their gradients over devices is
    taken once, outside of f: inside a branch that only some devices take it would wait for ever.
    """
    def wrap(f: Callable[..., Tree]) -> Callable[..., Tree]:
        def body(weights: Tree, *rows: Tree) -> Tree:
            return f(jax.tree.map(lambda w: jax.lax.pcast(w, AXIS, to="varying"), weights), *rows)

        def call(weights: Tree, *rows: Tree) -> Tree:
            specs = (PartitionSpec(), *(PartitionSpec(AXIS) for _ in rows))
            return jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(AXIS))(weights, *rows)

        return call

    return wrap
