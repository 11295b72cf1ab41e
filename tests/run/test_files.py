"""Files appear whole."""

import os

import pytest

from trm_jax.run import files


def test_a_file_appears_only_when_complete(tmp_path, monkeypatch):
    files.write(tmp_path / "config.json", "old")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write(tmp_path / "config.json", "new")
    assert (tmp_path / "config.json").read_text() == "old\n"
