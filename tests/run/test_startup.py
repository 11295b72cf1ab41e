import subprocess
import sys

import jax
import pytest

from trm_jax.errors import ConfigError
from trm_jax.run import startup
from trm_jax.run.mesh import data_mesh
from trm_jax.run.startup import cpu_devices


@pytest.mark.parametrize(("cores", "rows", "devices"), [
    (2, (32, 64), 2), (1, (32, 64), 1), (8, (12, 64), 4), (16, (256, 256), 16), (6, (32, 64), 4), (4, (3, 64), 1)])
def test_a_core_is_a_device_as_far_as_the_rows_divide(monkeypatch, cores, rows, devices):
    monkeypatch.setattr(startup.os, "sched_getaffinity", lambda _: range(cores))
    assert cpu_devices(*rows) == devices


# JAX is imported once; each start is a fork of that, as it has not looked for devices yet.
PROGRAM = """
import os, sys
for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_NUM_CPU_DEVICES"):
    os.environ.pop(name, None)
from pathlib import Path
from trm_jax.run.startup import keep_programs, use_cores
import jax
for start in ("plain", "set", "read-only"):
    if os.fork():
        os.wait()
        continue
    if start == "set":
        jax.config.update("jax_num_cpu_devices", 3)
        jax.config.update("jax_compilation_cache_dir", "elsewhere")
    if start == "read-only":
        os.access = lambda *_: False
    keep_programs(Path(sys.argv[1]))
    use_cores(*[len(os.sched_getaffinity(0)) * 4] * 2)
    print(jax.local_device_count() == len(os.sched_getaffinity(0)), jax.local_device_count(),
          jax.config.jax_compilation_cache_dir, flush=True)
    os._exit(0)
"""


def test_every_core_is_used_and_programs_last_unless_someone_has_decided_otherwise(tmp_path):
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path)], check=True,
                           capture_output=True, text=True).stdout
    plain, told, read_only = (line.split() for line in found.splitlines())
    assert plain[0] == "True" and plain[2].startswith(str(tmp_path / ".programs"))
    assert told[1:] == ["3", "elsewhere"]
    assert read_only[2] == "None"


def test_no_device_and_64_bits_are_one_line(monkeypatch):
    with jax.enable_x64(True), pytest.raises(ConfigError, match="set JAX_ENABLE_X64=0"):
        data_mesh()

    def none():
        raise RuntimeError("Unable to initialize backend 'cuda': no driver\nfor more, see …")

    monkeypatch.setattr(jax, "devices", none)
    with pytest.raises(ConfigError, match=r"JAX finds no device .*'cuda': no driver for more"):
        data_mesh()
