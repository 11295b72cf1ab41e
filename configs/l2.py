"""L2: online learning, 8 ACT steps per batch with an optimiser update each.

    ./launch.sh --config=configs/l2.py

At :tiny size: train/exact_accuracy 0.78.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(size: str = "") -> ConfigDict:
    config = base.get_config()
    config.mode.update(name="online", encode="every_step", num_act_steps=8)
    return base.at_size(config, size)
