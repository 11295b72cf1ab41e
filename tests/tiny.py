"""The smallest runs that train: presets shrunk to seconds, on a handful of tasks written here."""

import json
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from trm_jax.run.settings import Settings, from_dict

TASKS = 4
SIDE = 4


def write_tasks(folder: Path) -> Path:
    """`TASKS` train and evaluation tasks of 3×3 grids (recolour by a constant), as a json: source."""
    rng = np.random.default_rng(0)
    for subset in ("training", "evaluation"):
        (folder / subset).mkdir(parents=True)
        for i in range(TASKS):
            pairs = []
            for _ in range(4):
                grid = rng.integers(1, 9, (3, 3))
                pairs.append({"input": grid.tolist(), "output": ((grid + i) % 10).tolist()})
            task = {"train": pairs[:3], "test": pairs[3:]}
            (folder / subset / f"{subset[0]}{i:07d}.json").write_text(json.dumps(task))
    return folder


def shrink(config: ConfigDict, source: Path) -> ConfigDict:
    """A preset with everything that its experiment is about, and the smallest of everything else.

    A run has six steps, and is scored behind every second; twelve and every fifth with as many tasks again. Tests that
    stop it earlier, by `train.max_steps`, share its programs, of which the number of epochs is a part.
    """
    config.arch.update(hidden_size=16, num_heads=2, expansion=1.0, L_layers=1, H_cycles=2, L_cycles=1,
                       puzzle_emb_len=2, halt_max_steps=min(config.arch.halt_max_steps, 3), remat="none")
    config.mode.num_act_steps = min(config.mode.num_act_steps, 2)
    config.encoder.update(num_layers=1, set_layers=1, max_demos=3)
    config.optim.update(lr=1e-3, lr_warmup_steps=2)
    config.data.variants = 2 if config.data.variants else 0
    config.data.update(source=f"json:{source}", max_grid_size=SIDE, global_batch_size=8)
    config.train.update(epochs=12, eval_interval=5, log_every_steps=1)
    config.eval.update(augmentations=2, batch_size=8, pass_ks=(1, 2))
    return config


def settings(config: ConfigDict) -> Settings:
    return from_dict(json.loads(config.to_json()))
