"""launch.sh makes .venv once, reuses it, and recovers from one that was left half-made."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Stands in for Python. `-m venv` makes a copy of it, without pip where the file `broken` stands in the folder, and
# fails then as Debian's does without python3-venv; what it is asked to do is written to the file `calls`.
PYTHON = """#!/usr/bin/env bash
echo "$*" >>calls
case "$*" in
    "-c "*) exit 0 ;;
    "-m venv "*)
        mkdir -p .venv/bin && rm -f .venv/has_pip && cp "$0" .venv/bin/python
        [ ! -e broken ] || exit 1
        touch .venv/has_pip ;;
    "-m pip "*) [ -e .venv/has_pip ] ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    for name in ("launch.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def launch(checkout, *args):
    """Result of launch.sh, and the calls of Python that it made."""
    (checkout / "calls").write_text("")
    environment = os.environ | {"PYTHON": str(checkout / "python")}
    result = subprocess.run([checkout / "launch.sh", *args], env=environment, capture_output=True, text=True,
                            check=False)
    return result, (checkout / "calls").read_text().splitlines()


def installed(calls):
    return any(call.startswith("-m pip install") for call in calls)


def test_the_first_use_installs_and_the_second_only_runs(checkout):
    result, calls = launch(checkout, "--config=configs/o1.py:tiny")
    assert result.returncode == 0 and installed(calls)
    result, calls = launch(checkout, "--config=configs/o1.py:tiny")
    assert result.returncode == 0 and calls == ["-m trm_jax.train --config=configs/o1.py:tiny"]


def test_an_environment_that_could_not_be_made_is_taken_away_and_made_anew(checkout):
    (checkout / "broken").touch()
    result, _ = launch(checkout, "--config=configs/o1.py")
    assert result.returncode == 1 and "apt-get install python3-venv" in result.stderr
    assert not (checkout / ".venv").exists()
    (checkout / "broken").unlink()
    result, calls = launch(checkout, "--config=configs/o1.py")
    assert result.returncode == 0 and installed(calls)


def test_a_python_without_wheels_is_passed_over_and_said_so(checkout):
    newer = checkout / "bin" / "python3"
    newer.parent.mkdir()
    newer.write_text('#!/usr/bin/env bash\ncase "$1" in -c) exit 1 ;; --version) echo Python 3.14.0 ;; esac\n')
    newer.chmod(0o755)
    for name in ("bash", "dirname", "cat", "cksum", "grep", "sed", "head", "rm"):
        (newer.parent / name).symlink_to(shutil.which(name))
    environment = {"PATH": str(newer.parent), "PYTHON": "python3"}
    result = subprocess.run([checkout / "launch.sh", "test"], env=environment, capture_output=True, text=True,
                            check=False)
    assert result.returncode == 1 and not (checkout / ".venv").exists()
    assert result.stderr.splitlines()[1:] == [
        "launch.sh: needs Python 3.11, 3.12 or 3.13, which the pinned packages have wheels for (set PYTHON=… to name "
        "one); python3 is Python 3.14.0"]
    result, calls = launch(checkout, "test")
    assert f"launch.sh: taking {checkout / 'python'}" in result.stderr and installed(calls)


def test_a_clone_on_windows_has_a_shell_script_that_a_shell_runs():
    result = subprocess.run(["git", "check-attr", "eol", "launch.sh", ".ci/run"], cwd=ROOT, capture_output=True,
                            text=True, check=True)
    assert [line.split(": ")[-1] for line in result.stdout.splitlines()] == ["lf", "lf"]


def test_an_environment_without_pip_is_made_anew(checkout):
    """As after Ctrl-C: venv makes bin/python before it installs pip."""
    (checkout / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(checkout / "python", checkout / ".venv" / "bin" / "python")
    result, calls = launch(checkout, "--config=configs/o1.py")
    assert result.returncode == 0 and "-m venv --clear .venv" in calls and installed(calls)


def test_an_environment_whose_installation_was_cut_off_is_kept_and_completed(checkout):
    launch(checkout, "--config=configs/o1.py")
    (checkout / ".venv" / ".installed").unlink()
    result, calls = launch(checkout, "--config=configs/o1.py")
    assert result.returncode == 0 and installed(calls) and not any("venv" in call for call in calls)
