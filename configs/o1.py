"""O1: original dynamics, halting exploration 0.5 (the control).

    ./launch.sh --config=configs/o1.py

At :tiny size: 5 minutes on two CPU cores, train/exact_accuracy 0.66.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(size: str = "") -> ConfigDict:
    config = base.get_config()
    config.arch.halt_exploration_prob = 0.5
    return base.at_size(config, size)
