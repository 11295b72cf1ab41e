"""T2: T1 without any evaluation task: the decoder for held-out claims, for train.load_pretrained_decoder=runs/t2.

A table of embeddings answers only tasks that it has rows for: this run is not scored, its decoder's use is.

    ./launch.sh --config=configs/t2.py
"""

from ml_collections import ConfigDict

from configs import t1


def get_config(size: str = "") -> ConfigDict:
    config = t1.get_config(size)
    config.data.evaluation_demos = False
    return config
