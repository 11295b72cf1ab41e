"""Eight virtual CPU devices, strict ranks, full-precision matmuls: set before the first use of a device.

Tests run on the cores that they may use, eight at most. Most of what they do is compile: programs are compiled once,
for all workers and for the commands that tests start (.pytest_cache/xla), and turned into machine code in the quickest
way there is, a seventh of the work: without LLVM's optimisation, without MLIR where operations are fused, and as one
module. What a program computes and sends between devices is decided before that. TRM_TESTS_OPTIMISED=1 compiles as a
run does. Operations carry no lines of source, and Python looks for garbage a hundred times less often: tracing makes
much and leaves little.
"""

import gc
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "xla"))
if "TRM_TESTS_OPTIMISED" not in os.environ:
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    os.environ["XLA_FLAGS"] = ("--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 "
                               f"{os.environ.get('XLA_FLAGS', '')}")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

import jax
import pytest
from xdist.scheduler import LoadFileScheduling

from tests import parity

# Under nohup, or in the background of a script, these are ignored, and what tests start would ignore them too.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

gc.set_threshold(70_000)
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tasks/ and a run/ on them; for reading only."""
    from tests import trained_run  # after the settings above

    folder = tmp_path_factory.mktemp("trained")
    trained_run.write_tasks(folder / "tasks")
    trained_run.write_run(folder / "run", folder / "tasks")
    return folder


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tasks for the smallest runs; for reading only."""
    from tests import tiny

    return tiny.write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="session")
def begun(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step on one device; for reading only."""
    from tests.preset_runs import devices, preset
    from trm_jax.train import train

    workdir = tmp_path_factory.mktemp("begun") / "run"
    with devices(1):
        train(preset("o1", source, max_steps=1), workdir)
    return workdir


@pytest.fixture(scope="session", autouse=True)
def shared_programs() -> Iterator[None]:
    """Runs of one process whose programs are the same share them: each is traced once, not at every start."""
    from tests import sharing

    with pytest.MonkeyPatch.context() as patch:
        sharing.install(patch)
        yield


@pytest.fixture
def one_device() -> Iterator[None]:
    """Runs see the first of the virtual devices only."""
    from tests.preset_runs import devices

    with devices(1):
        yield


@pytest.fixture
def eager() -> Iterator[None]:
    """Runs begin with a Q-head that wants to halt at once."""
    from tests.preset_runs import eager_runs

    with eager_runs():
        yield


# What `--quick` leaves out: these compile whole models, or start commands.
SLOW = (
    "benchmarks/", "models/", "tools/", "dynamics/test_trajectories.py", "dynamics/test_inference.py",
    "dynamics/test_table.py", "dynamics/test_search.py", "run/test_checkpoint.py", "run/test_continuation.py",
    "run/test_interrupt.py", "run/test_lock.py", "run/test_processes.py", "run/test_programs.py",
    "run/test_settings.py", "run/test_start.py", "run/test_startup.py", "run/test_watching.py", "test_adapt.py",
    "test_bad_input.py", "test_command.py", "test_contributing.py", "test_evaluate.py", "test_evaluate_errors.py",
    "test_gpu_programs.py", "test_parity_required.py", "test_solve.py", "test_train.py",
)


# A file is tested by one worker, which makes its runs and programs once; so are files whose programs are the same.
SHARING = {"run/test_programs.py": "test_train.py", "test_adapt.py": "test_train.py",
           "run/test_continuation.py": "test_bad_input.py", "run/test_interrupt.py": "test_bad_input.py",
           "run/test_settings.py": "test_bad_input.py", "test_contributing.py": "test_bad_input.py",
           "test_evaluate_errors.py": "test_evaluate.py", "test_solve.py": "test_evaluate.py"}
# The longest come first: none is left over.
LONGEST = ("test_train.py", "run/test_programs.py", "test_adapt.py", "test_bad_input.py", "run/test_interrupt.py",
           "models/test_encoders.py", "dynamics/test_trajectories.py", "test_gpu_programs.py", "models/test_decoder.py",
           "benchmarks/test_against_torch.py", "test_evaluate.py", "test_command.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out what compiles whole models or starts commands")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts LONGEST first; leaves out SLOW where --quick asks for it."""
    def file(item: pytest.Item) -> str:
        return item.path.relative_to(Path(__file__).parent).as_posix()

    items.sort(key=lambda item: LONGEST.index(file(item)) if file(item) in LONGEST else len(LONGEST))
    if config.getoption("--quick"):
        config.hook.pytest_deselected(items=[item for item in items if file(item).startswith(SLOW)])
        items[:] = [item for item in items if not file(item).startswith(SLOW)]


class Together(LoadFileScheduling):
    """Gives each file to one worker, and those of SHARING to the same."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid).removeprefix("tests/")
        return SHARING.get(file, file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    return Together(config, log)


def pytest_xdist_auto_num_workers() -> int:
    """A worker for each core that this process may use; none besides it where that is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if cores > 1 else 0


def pytest_sessionstart(session: pytest.Session) -> None:
    """Where golden cases are asked for, by TRM_PARITY_DIR or `-m parity`, finding none is a failure, not a skip."""
    asked = re.search(r"(?<!not )\bparity\b", session.config.option.markexpr)
    if (parity.FOLDER in os.environ or asked) and not parity.all_cases():
        pytest.exit(f"golden cases are asked for, but there is none in {parity.ROOT}: set {parity.FOLDER} to the "
                    "folder that holds them", returncode=1)
