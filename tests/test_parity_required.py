"""Golden cases that are asked for and not found are a failure, so that parity cannot be green without having run."""

from types import SimpleNamespace

import pytest

from tests import conftest, parity


def session(markexpr):
    return SimpleNamespace(config=SimpleNamespace(option=SimpleNamespace(markexpr=markexpr)))


def test_cases_must_be_there_where_they_are_asked_for(monkeypatch):
    """By the parity tests' mark, or by naming a folder."""
    monkeypatch.setattr(parity, "all_cases", tuple)
    for folder, markexprs in (("mistyped", ("", "parity")), (None, ("parity", "parity and not slow"))):
        monkeypatch.setenv(parity.FOLDER, folder) if folder else monkeypatch.delenv(parity.FOLDER)
        for markexpr in markexprs:
            with pytest.raises(pytest.exit.Exception, match="golden cases are asked for") as stopped:
                conftest.pytest_sessionstart(session(markexpr))
            assert stopped.value.returncode == 1
    for markexpr in ("", "not parity"):
        conftest.pytest_sessionstart(session(markexpr))
