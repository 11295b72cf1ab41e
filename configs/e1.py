"""E1: the deeper `hybrid_standard` encoder (CLS token, four pre-norm blocks, two set layers).

    ./launch.sh --config=configs/e1.py

At :tiny size: train/exact_accuracy 0.83.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(size: str = "") -> ConfigDict:
    config = base.get_config()
    config.encoder.update(type="hybrid_standard", num_layers=4, norm_style="pre", set_layers=2)
    config.data.global_batch_size = 128
    return base.at_size(config, size)
