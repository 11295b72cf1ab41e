"""Golden cases that are asked for and not found are a failure, so that parity cannot be green without having run."""

import os
import subprocess
import sys

import pytest


def run(folder, *args, **environment):
    unset = {key: value for key, value in os.environ.items() if key != "TRM_PARITY_DIR"}
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_parity_kinds.py",
                           *args], env=unset | environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("args", [(), ("-m", "parity"), ("-m", "parity and not slow")])
def test_a_folder_that_is_named_must_hold_cases(args, tmp_path):
    result = run(tmp_path, *args, TRM_PARITY_DIR=str(tmp_path / "mistyped"))
    assert result.returncode == 1
    assert f"there is none in {tmp_path / 'mistyped'}: set TRM_PARITY_DIR" in result.stdout + result.stderr
