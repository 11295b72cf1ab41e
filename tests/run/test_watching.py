"""A run that hangs, steps that are traced, and what memory is used."""

import subprocess
import sys

import jax.numpy as jnp
import pytest

from trm_jax.errors import ConfigError
from trm_jax.run.profile import Profile
from trm_jax.run.progress import _memory


def test_the_stacks_of_a_run_that_hangs_are_logged():
    program = ("import threading, time\nfrom trm_jax.run.stalls import Stalls\n"
               "def waits_for_ever(): time.sleep(60)\n"
               "threading.Thread(target=waits_for_ever, daemon=True).start()\n"
               "stalls = Stalls(0.3 / 60)\n"
               "for _ in range(10):\n    time.sleep(0.1)\n    stalls.restart()\n"
               "print('alive', flush=True)\ntime.sleep(0.8)\nstalls.close()\n")
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=50)
    assert found.stdout == "alive\n"
    assert found.stderr.count("Timeout (") == 2 and "waits_for_ever" in found.stderr


@pytest.mark.parametrize("begun", [0, 1, 2])
def test_steps_are_traced_as_far_as_a_start_makes_them(begun, tmp_path):
    profile = Profile("2:3", tmp_path)
    assert profile.begin(begun, 9) == []
    for done in range(begun + 1, 5):
        profile.finished(done, {"loss": jnp.ones(())})
        assert bool(list(tmp_path.rglob("*.xplane.pb"))) == (done >= 3)
    profile.close()
    missed = "--profile=2:3: nothing is traced, as this start makes the steps 4 to 9"
    assert Profile("2:3", tmp_path / "none").begin(3, 9) == [missed] and Profile(None, tmp_path).begin(0, 9) == []
    Profile(None, tmp_path / "none").finished(1, {})
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("steps", ["5", "5:", "0:3", "7:3", "a:b", ""])
def test_a_wrong_profile_is_one_line(steps, tmp_path):
    with pytest.raises(ConfigError, match=f"--profile={steps} must be START:STOP"):
        Profile(steps, tmp_path)


def test_memory_is_told():
    assert 0.05 < _memory()["perf/host_memory_gb"] < 1000
