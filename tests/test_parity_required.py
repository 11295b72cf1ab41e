"""Golden cases that are asked for and not found are a failure, so that parity cannot be green without having run."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests import conftest, parity


def test_a_folder_that_is_named_must_hold_cases(tmp_path):
    environment = os.environ | {"TRM_PARITY_DIR": str(tmp_path / "mistyped")}
    result = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
                             "tests/test_parity_kinds.py"], env=environment, capture_output=True, text=True,
                            check=False)
    assert result.returncode == 1
    assert f"there is none in {tmp_path / 'mistyped'}: set TRM_PARITY_DIR" in result.stdout + result.stderr


def session(markexpr):
    return SimpleNamespace(config=SimpleNamespace(option=SimpleNamespace(markexpr=markexpr)))


def test_cases_must_be_there_where_the_parity_tests_are_asked_for(monkeypatch):
    monkeypatch.delenv("TRM_PARITY_DIR", raising=False)
    monkeypatch.setattr(parity, "all_cases", tuple)
    for markexpr in ("", "not parity"):
        conftest.pytest_sessionstart(session(markexpr))
    for markexpr in ("parity", "parity and not slow"):
        with pytest.raises(pytest.exit.Exception, match="golden cases are asked for"):
            conftest.pytest_sessionstart(session(markexpr))
