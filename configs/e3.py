"""E3: the encoder of latent program networks (`lpn_variational`): six blocks, a latent per demonstration.

The KL weight is that of the PyTorch runs: 0.001 on four processes with a batch of 128.

    ./launch.sh --config=configs/e3.py

At :tiny size: train/exact_accuracy 0.34.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(size: str = "") -> ConfigDict:
    config = base.get_config()
    config.encoder.update(type="lpn_variational", num_layers=6)
    config.data.global_batch_size = 128
    config.loss.kl_weight = base.kl_weight_of_torch(0.001, processes=4, global_batch_size=128)
    return base.at_size(config, size)
