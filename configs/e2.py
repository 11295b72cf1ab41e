"""E2: E1 with a Gaussian latent per task (`hybrid_variational`).

The KL weight is that of the PyTorch runs: 0.001 on four processes with a batch of 128.

    ./launch.sh --config=configs/e2.py

At :tiny size: train/exact_accuracy 0.27.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(size: str = "") -> ConfigDict:
    config = base.get_config()
    config.encoder.update(type="hybrid_variational", num_layers=4, norm_style="pre", set_layers=2)
    config.data.global_batch_size = 128
    config.loss.kl_weight = base.kl_weight_of_torch(0.001, processes=4, global_batch_size=128)
    return base.at_size(config, size)
