"""The worked examples of CONTRIBUTING.md, together in one run; and the cells of the quick start."""

import json
import re
from pathlib import Path

import jax
import numpy as np

from configs import o1
from tests.preset_runs import preset, scalars
from trm_jax.data.arc import sources
from trm_jax.dynamics import steps
from trm_jax.models import encoders
from trm_jax.train import train

ROOT = Path(__file__).parents[1]


def test_an_encoder_a_mode_and_a_source_are_added_as_it_says(tmp_path, one_device):
    tables = [(table, dict(table)) for table in (encoders.ENCODERS, steps.STEPS, sources.READERS)]
    try:
        for code in re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL):
            exec(code, {})
        rng = np.random.default_rng(0)
        for name in "abcd":
            grids = ["\n".join("".join(map(str, row)) for row in rng.integers(0, 9, (3, 3))) for _ in range(6)]
            (tmp_path / f"{name}.txt").write_text("\n\n".join(grids) + "\n")
        config = preset("o1", tmp_path, max_steps=2)
        config.data.source = f"text:{tmp_path}"
        config.mode.name = "forgetful"
        config.encoder.type = "pooled_mean"
        config.train.eval_interval = 10  # it is not scored: another program for an encoder that is of known parts
        state = train(config, tmp_path / "run")
    finally:
        for table, before in tables:
            table.clear()
            table.update(before)
    assert int(state.step) == 2
    assert int(jax.device_get(state.samples)) == 2 * config.data.global_batch_size  # every row started twice
    assert np.isfinite(scalars(tmp_path / "run")["train/loss"]).all()


def test_the_cells_of_the_quick_start_run(source, tmp_path, monkeypatch, capsys, one_device):
    """With a preset shrunk to seconds in place of the one that they train."""
    cells = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    config = preset("o1", source, max_steps=1)
    monkeypatch.setattr(o1, "get_config", lambda size: config)
    monkeypatch.chdir(tmp_path)
    names = {"display": print}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            exec("".join(cell["source"]), names)
    shown = capsys.readouterr().out
    assert "attempt 1" in shown and shown.count("<PIL.") == 2  # a picture in every front end, as a Figure is not
    assert (tmp_path / "runs" / "quickstart" / "config.json").exists()
