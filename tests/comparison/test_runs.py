"""What is known of a run: how far it came, whether it failed, and its mode without a configuration."""

import sys

import pytest
from tensorboardX import SummaryWriter

from tests.comparison.fabricate import START_S, level, online_scalars, original_config, original_scalars, write_run
from tests.comparison.judging import until, verdict_of, write_pair
from trm_jax import compare
from trm_jax.comparison.judgement.contests import ONLINE, ORIGINAL, UNDECIDED
from trm_jax.comparison.record.groups import group_runs
from trm_jax.comparison.record.runs import load_run

ERROR = "training stopped at step 1250: the loss is not finite"


def write_failure(folder, step: int, wall_s: float) -> None:
    with SummaryWriter(str(folder), filename_suffix=".failed") as writer:
        writer.add_text("failed", f"```\n{ERROR}\nTraceback …\n```", step, walltime=wall_s)


def test_a_run_that_max_steps_stopped_is_not_finished(tmp_path):
    scalars = until(400, original_scalars())
    pair = write_pair(tmp_path, scalars, online_scalars(0.5), train__max_steps=400)
    run = load_run(pair[0], "o1")
    assert run.progress == pytest.approx(0.16)
    verdict = verdict_of(*pair)
    assert verdict.answer == UNDECIDED
    assert verdict.contests[0].reason == "o1 was stopped by train.max_steps at 16 % of its epochs"
    assert any("32 groups for 3,200 epochs" in caveat for caveat in verdict.caveats)


def test_a_run_that_says_why_it_stopped_has_diverged(tmp_path):
    pair = write_pair(tmp_path, until(1250, original_scalars()), online_scalars(0.5))
    write_failure(pair[0], 1250, START_S + 1251)
    run = load_run(pair[0], "o1")
    assert run.diverged and run.notes == (f"stopped with: {ERROR}",)
    verdict = verdict_of(*pair)
    assert verdict.answer == UNDECIDED
    assert verdict.contests[0].reason == f"o1 diverged: {ERROR}"


@pytest.mark.parametrize(("last", "diverged"), [(1000, True), (2500, False)])
def test_a_failure_counts_until_the_run_has_passed_it(tmp_path, last, diverged):
    write_run(tmp_path, until(1250, original_scalars()), original_config())
    write_failure(tmp_path, 1250, START_S + 1251)
    steps, accuracy = until(last, original_scalars())["train/accuracy"]
    again = {"train/accuracy": (steps[steps > 900], accuracy[steps > 900])}
    write_run(tmp_path, again, start_s=START_S + 86_400, suffix="1")
    assert load_run(tmp_path, "o1").diverged == diverged


def test_runs_without_a_configuration(tmp_path):
    """PyTorch runs: modes by their tags, no epochs, and no guess at them."""
    original = write_run(tmp_path / "torch_original", original_scalars(0.95))
    online = write_run(tmp_path / "torch_online", online_scalars(0.85))
    runs = compare.load_runs([str(original), str(online)], [])
    assert [run.mode for run in runs] == [ORIGINAL, ONLINE]
    assert set(runs[0].axes) == {"updates", "hours"}
    assert set(runs[1].axes) == {"hours"}
    verdict = verdict_of(original, online)
    assert verdict.answer == UNDECIDED
    assert "epochs of torch_original are not known" in verdict.contests[1].reason


@pytest.mark.parametrize(
    ("folder", "label", "mode"),
    [
        ("L1_online_4steps", "run", ONLINE),
        ("run", "l2", ONLINE),
        ("R1", "run", ORIGINAL),
        ("run", "O1_original_baseline", ORIGINAL),
        ("e1", "run", ORIGINAL),  # by its tags
        ("lr_search", "l10", ORIGINAL),
    ],
)
def test_the_name_tells_the_mode_before_the_tags_do(tmp_path, folder, label, mode):
    run = load_run(write_run(tmp_path / folder, {"train/steps": level(4.0)}), label)
    assert (run.mode, run.mode_is_inferred) == (mode, True)


TORCH_CONFIG = """
arch: {num_act_steps: 4, halt_max_steps: 16, halt_exploration_prob: 0.5, encoder_type: standard, name: etrm}
global_batch_size: 256
max_train_groups: 32
epochs: 20000
lr_min_ratio: 1.0
lr: 1e-4
"""


def write_torch_run(folder, scalars, **changes):
    write_run(folder, scalars)
    lines = [f"{name}: {value}" for name, value in ({"run_name": folder.name, "seed": 0} | changes).items()]
    (folder / "all_config.yaml").write_text(TORCH_CONFIG + "\n".join(lines), encoding="utf-8")
    return folder


def test_the_configuration_of_pytorch_runs(tmp_path):
    pytest.importorskip("yaml")
    original = write_torch_run(tmp_path / "O1_original_baseline", original_scalars(0.95, 0.15))
    online = write_torch_run(tmp_path / "L1_online_4steps", online_scalars(0.80, 0.3))
    runs = compare.load_runs([str(original), str(online)], [])
    assert [run.mode for run in runs] == [ORIGINAL, ONLINE]
    assert all(set(run.axes) == {"updates", "samples", "epochs", "hours"} for run in runs)
    assert [run.progress for run in runs] == pytest.approx([1, 1])
    verdict = verdict_of(original, online)
    assert verdict.headline == "The original dynamics train better (provisional: one seed each)"


def test_pytorch_runs_that_differ_in_more_than_the_seed_are_no_seeds_of_one(tmp_path):
    pytest.importorskip("yaml")
    runs = [
        write_torch_run(tmp_path / name, original_scalars(seed=seed), seed=seed, puzzle_emb_lr=rate)
        for name, seed, rate in (("o1_seed0", 0, 0.01), ("o1_seed1", 1, 0.01), ("o1_seed2", 2, 0.02))
    ]
    groups = group_runs(compare.load_runs([str(run) for run in runs], []))
    assert [group.seeds for group in groups] == [2, 1]


def test_without_pyyaml_the_configuration_of_pytorch_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    run = load_run(write_torch_run(tmp_path / "o1", original_scalars()), "o1")
    assert not run.config
    assert "pyyaml" in run.notes[0]


def test_a_configuration_of_pytorch_that_cannot_be_read_is_noted(tmp_path):
    pytest.importorskip("yaml")
    write_run(tmp_path, original_scalars())
    for text in ("{broken", "a text"):
        (tmp_path / "all_config.yaml").write_text(text, encoding="utf-8")
        run = load_run(tmp_path, "o1")
        assert not run.config and "all_config.yaml" in run.notes[0] and "\n" not in run.notes[0]
