"""T1: TRM without an encoder, by the published recipe: an embedding for each of 1000 variants of each task.

It trains on the demonstrations of the evaluation tasks too, each asked in turn: its scores are transductive. The step
count is that of the published ARC-AGI-1 run, 518,071 updates of 768 rows. Nobody has trained it to its end here.

    ./launch.sh --config=configs/t1.py
"""

from ml_collections import ConfigDict

from configs import base

EPOCHS = 500_000  # of one pair a task; in the published run's, an epoch visits every pair: 100,000


def get_config(size: str = "") -> ConfigDict:
    config = base.get_config()
    config.mode.encode = "every_step"
    config.arch.update(L_cycles=4, halt_exploration_prob=0.1)
    config.encoder.update(type="embedding", max_demos=1)  # no demonstration is read
    config.data.update(evaluation_demos=True, queries="all", variants=1000, max_train_groups=0, max_eval_groups=0,
                       global_batch_size=768)
    config.train.update(epochs=EPOCHS, eval_interval=EPOCHS // 10)
    if size == "tiny":
        config.data.update(variants=1, max_train_groups=32)  # each task as it is
    config = base.at_size(config, size)
    if size == "tiny":
        config.data.max_grid_size = 6  # what fits 10×10 are 115 tasks, which take more than ten minutes
        config.eval.augmentations = 1
    return config
