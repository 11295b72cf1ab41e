"""Processes, devices and shardings: the one place that knows the mesh axis.

All devices form one data axis. Parameters, moments and averages are on every device; batches and the carry are
split by rows.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from trm_jax.dynamics.state import RowFunction, RowSums, TrainState
from trm_jax.errors import ConfigError
from trm_jax.run.reasons import reason

Tree = Any
AXIS = "data"


# Flags of every command that several processes can share → type and meaning.
PROCESS_FLAGS: dict[str, tuple[type, str]] = {
    "coordinator": (str, "HOST:PORT at which the first of several processes is to listen"),
    "num_processes": (int, "number of processes that make one run"),
    "process_id": (int, "which of them this is, from 0"),
}
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")  # say the same, where no flag does
# Who starts processes → the variables in which it says how many, and which one; with the last, JAX finds the rest.
LAUNCHERS = {
    "SLURM": ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST"),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_MCA_orte_hnp_uri"),
    "Kubernetes": ("", "JOB_COMPLETION_INDEX", "KUBERNETES_SERVICE_HOST"),
}
HEARTBEAT_S = 30  # without a sign of life of another process, after which this one ends


def start_processes(coordinator: str | None = None, num_processes: int | None = None,
                    process_id: int | None = None) -> None:
    """Joins the other processes of a run that was started as several; does nothing where there is only this one.

    The arguments tell, or VARIABLES, or one of LAUNCHERS.

    Raises:
        ConfigError: only some of what is needed is given, or the processes do not find each other.
    """
    launcher = _launcher()
    words = [os.environ.get(variable) or None if word is None else str(word)
             for word, variable in zip((coordinator, num_processes, process_id), VARIABLES, strict=True)]
    if launcher is None and not any(words):
        return
    count, which, where = LAUNCHERS.get(launcher or "", ("", "", ""))
    words = [word or os.environ.get(variable) for word, variable in zip(words, ("", count, which), strict=True)]
    if where not in os.environ and not all(words):
        missing = ", ".join(f"--{flag.replace('_', '-')} ({variable})" for word, flag, variable in
                            zip(words, PROCESS_FLAGS, VARIABLES, strict=True) if not word)
        started = f", which {launcher} started," if launcher else ""
        raise ConfigError(f"one of several processes{started} needs to know more: {missing} is not set")
    for word in words[1:]:
        if word and not word.isdecimal():
            raise ConfigError(f"{word!r} is no number of processes")
    _join(words[0], *(int(word) if word else None for word in words[1:]))


def _launcher() -> str | None:
    """The one of LAUNCHERS that has started this process as one of several."""
    for name, (count, which, where) in LAUNCHERS.items():
        if os.environ.get(count, "1") != "1" and which in os.environ and (where in os.environ or name != "SLURM"):
            return name  # a batch script of SLURM is no such process: srun starts them
    return "Kubernetes" if all(name in os.environ for name in LAUNCHERS["Kubernetes"][1:]) else None


def _join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    if coordinator is not None and not coordinator.rpartition(":")[2].isdecimal():
        raise ConfigError(f"--coordinator={coordinator} must be HOST:PORT")
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise ConfigError(f"--process-id={process_id} must be at least 0 and below --num-processes={num_processes}")
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM, which the run listens to
    one_visible = len(os.environ.get("CUDA_VISIBLE_DEVICES", ",").split(",")) == 1
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, 0 if one_visible else None,
                                   heartbeat_timeout_seconds=HEARTBEAT_S, shutdown_timeout_seconds=HEARTBEAT_S)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ConfigError(f"the processes of this run do not find each other: {reason(error)}") from None


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Ends this process, in one line, when another process of the run has: it would wait for that one for ever."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        sys.stderr.write(f"error: another process of this run has ended, or does not answer ({reason(error)}); the "
                         "same command, for all of them, goes on from the last checkpoint\n")
        sys.stderr.flush()
        os._exit(1)  # leaving in order would wait for the others too


def data_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """One axis over `devices` (all of every process by default).

    Raises:
        ConfigError: JAX finds none, or is to compute in 64 bits.
    """
    if jax.dtypes.canonicalize_dtype(np.float64) == np.float64:
        raise ConfigError("JAX_ENABLE_X64 is on, and all that is trained here has 32 bits: set JAX_ENABLE_X64=0")
    try:
        devices = jax.devices() if devices is None else devices
    except (RuntimeError, AssertionError) as error:  # what is named is not here, or its driver does not start
        asked, why = jax.config.values["jax_platforms"] or "", f": {reason(error)}" if str(error) else ""
        raise ConfigError(f"JAX finds no device to compute with, JAX_PLATFORMS={asked}{why}") from None
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


def from_first(value: int | None) -> int | None:
    """What `value` (None or not negative) is on the first process, on every process."""
    if jax.process_count() == 1:
        return value
    found = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if value is None else value)))
    return None if found < 0 else found


def on_first(act: Callable[[], object]) -> None:
    """Calls `act` on the first process only, while the others wait.

    Raises:
        ConfigError: `act` did, on the first process; the others say that it did.
    """
    problem: ConfigError | None = None
    if jax.process_index() == 0:
        try:
            act()
        except ConfigError as error:
            problem = error
    if from_first(problem is not None):
        raise problem or ConfigError("the first process of this run cannot go on; see its message")


class Agreement:
    """What is the largest of the numbers that each process says, the same on all of them.

    With several processes the answer is that of the call before, so that no step is waited for; all of them must ask
    equally often.
    """

    def __init__(self, mesh: Mesh):
        self._mesh = mesh
        self._largest = jax.jit(lambda said: said.max(axis=0), out_shardings=replicated(mesh))
        self._pending: jax.Array | None = None

    def __call__(self, *said: int) -> tuple[int, ...]:
        if jax.process_count() == 1:
            return said
        before, rows = self._pending, np.tile(np.asarray(said, np.int32), (self._mesh.local_mesh.size, 1))
        padded = np.pad(rows, ((0, 0), (0, 2 - len(said))))  # one program, however much is asked
        self._pending = self._largest(to_global(self._mesh, padded))
        found = np.zeros(2, np.int32) if before is None else jax.device_get(before)
        return tuple(int(number) for number in found[: len(said)])


def summed_over_rows(mesh: Mesh, parts: int = 1) -> RowSums:
    """A wrapper that runs f(everywhere, *rows) → (sums, shown, own) on each device's rows by itself.

    `everywhere` is whole on every device, `rows` and `own` are split by rows. `sums` are added up over `parts` equal
    parts of a device's rows, which f is given one after another, and then over devices; `shown` are rows that every
    device gets to see. Both come in one reduction: nothing else crosses devices.

    What is everywhere is marked as varying before f sees it, so that a gradient taken within f is the device's own:
    within a branch or a loop that only some devices take, a sum over all would wait for ever.
    """
    def wrap(f: RowFunction) -> RowFunction:
        def body(everywhere: Tree, *rows: Tree) -> tuple[Tree, Tree, Tree]:
            sums, shown, own = _in_parts(f, parts)(_varying(everywhere), *rows)
            return *jax.lax.psum((sums, jax.tree.map(_among_all, shown)), AXIS), own

        def call(everywhere: Tree, *rows: Tree) -> tuple[Tree, Tree, Tree]:
            whole, by_row = PartitionSpec(), PartitionSpec(AXIS)
            return jax.shard_map(body, mesh=mesh, in_specs=(whole, *(by_row for _ in rows)),
                                 out_specs=(whole, whole, by_row))(everywhere, *rows)

        return call

    return wrap


def all_rows(rows: Tree) -> Tree:
    """Within `summed_over_rows`: the same arrays of all devices' rows, in the place of this device's."""
    return jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, AXIS, tiled=True), rows)


def _in_parts(f: RowFunction, parts: int) -> RowFunction:
    """f on `parts` equal parts of its rows, one after another, whose sums are added up."""
    if parts == 1:
        return f

    f = jax.jit(f, inline=True)  # traced once, for its shapes and in the loop

    def call(everywhere: Tree, *rows: Tree) -> tuple[Tree, Tree, Tree]:
        def add(total: Tree, rows: tuple[Tree, ...]) -> tuple[Tree, Tree]:
            sums, *of_rows = f(everywhere, *rows)
            return jax.tree.map(jax.numpy.add, total, sums), of_rows

        cut = jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), rows)
        sums, *_ = jax.eval_shape(f, everywhere, *jax.tree.map(lambda leaf: leaf[0], cut))
        total = _varying(jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype), sums))
        total, of_rows = jax.lax.scan(add, total, cut)
        return total, *jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), of_rows)

    return call


def _among_all(own: jax.Array) -> jax.Array:
    """This device's rows where they stand among all, zeros in the others' places: their sum shows all."""
    everyone = jax.numpy.zeros_like(own, shape=(jax.lax.axis_size(AXIS) * len(own), *own.shape[1:]))
    return jax.lax.dynamic_update_slice_in_dim(everyone, own, jax.lax.axis_index(AXIS) * len(own), axis=0)


def _varying(tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: jax.lax.pcast(leaf, AXIS, to="varying"), tree)
