"""L1: online learning, 4 ACT steps per batch with an optimiser update each.

    ./launch.sh --config=configs/l1.py

At :tiny size: 8 minutes on two CPU cores, train/exact_accuracy 0.89.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(size: str = "") -> ConfigDict:
    config = base.get_config()
    config.mode.update(name="online", encode="every_step", num_act_steps=4)
    return base.at_size(config, size)
