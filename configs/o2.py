"""O2: original dynamics, halting exploration 0.3 (fewer rows are forced on: more control for the Q-head).

    ./launch.sh --config=configs/o2.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config(size: str = "") -> ConfigDict:
    config = base.get_config()
    config.arch.halt_exploration_prob = 0.3
    return base.at_size(config, size)
