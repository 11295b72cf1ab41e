"""O3: original dynamics, halting exploration 0.7 (more rows are forced on: the model sees more steps).

    ./launch.sh --config=configs/o3.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config(size: str = "") -> ConfigDict:
    config = base.get_config()
    config.arch.halt_exploration_prob = 0.7
    return base.at_size(config, size)
