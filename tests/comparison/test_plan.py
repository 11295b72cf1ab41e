"""What to run next: the branch of the decision tree, and the commands that run it."""

from pathlib import Path

from tests.comparison.fabricate import (
    online_config,
    online_scalars,
    original_config,
    original_scalars,
    write_run,
)
from trm_jax import compare
from trm_jax.comparison.groups import group_runs
from trm_jax.comparison.verdict import Verdict, judge


def verdict_of(*folders: Path) -> Verdict:
    return judge(group_runs(compare.load_runs([str(folder) for folder in folders], [])))


def write_pair(folder: Path, original: dict, online: dict) -> tuple[Path, Path]:
    """O1 and L1 with the given scalars."""
    return (
        write_run(folder / "o1", original, original_config()),
        write_run(folder / "l1", online, online_config()),
    )


def test_the_winner_names_the_branch(tmp_path):
    pair = write_pair(tmp_path, original_scalars(0.95, 0.15), online_scalars(0.85, 0.3))
    assert verdict_of(*pair).next_step.commands == (
        "./launch.sh --config=configs/o2.py --workdir=runs/o2",
        "./launch.sh --config=configs/o3.py --workdir=runs/o3",
    )
    other = write_pair(tmp_path, original_scalars(0.85, 0.3), online_scalars(0.97, 0.1))
    assert [command.split()[1] for command in verdict_of(*other).next_step.commands] == [
        "--config=configs/l2.py",
        "--config=configs/l3.py",
    ]


def test_a_tie_adds_a_seed_of_each(tmp_path):
    verdict = verdict_of(*write_pair(tmp_path, original_scalars(), online_scalars()))
    assert verdict.next_step.commands[1].endswith("--workdir=runs/l1_seed1 --config.train.seed=1")


def test_an_unfinished_run_goes_on_in_its_folder(tmp_path):
    half = {tag: (s[s <= 1250], v[s <= 1250]) for tag, (s, v) in original_scalars().items()}
    original, online = write_pair(tmp_path, half, online_scalars())
    assert verdict_of(original, online).next_step.commands == (
        f"./launch.sh --config=configs/o1.py --workdir={original}",
    )


def test_the_other_mode_is_run_first(tmp_path):
    run = write_run(tmp_path / "o1", original_scalars(), original_config())
    assert verdict_of(run).next_step.commands == ("./launch.sh --config=configs/l1.py --workdir=runs/l1",)


def test_after_the_branch_comes_the_e_series_with_the_best_settings(tmp_path):
    pair = write_pair(tmp_path, original_scalars(0.95), online_scalars(0.85))
    o2 = write_run(tmp_path / "o2", original_scalars(0.99), original_config(arch__halt_exploration_prob=0.3))
    o3 = write_run(tmp_path / "o3", original_scalars(0.90), original_config(arch__halt_exploration_prob=0.7))
    verdict = verdict_of(*pair, o2, o3)
    assert verdict.next_step.commands[0] == (
        "./launch.sh --config=configs/e1.py --workdir=runs/e1 --config.arch.halt_exploration_prob=0.3"
    )
    assert len(verdict.next_step.commands) == 3


def test_the_e_series_under_online_learning(tmp_path):
    pair = write_pair(tmp_path, original_scalars(0.85), online_scalars(0.93))
    more = [
        write_run(tmp_path / name, online_scalars(final), online_config(mode__num_act_steps=act_steps))
        for name, act_steps, final in (("l2", 8, 0.98), ("l3", 16, 0.90))
    ]
    encoders = [
        write_run(tmp_path / name, online_scalars(0.9), online_config(encoder__type=encoder))
        for name, encoder in (
            ("e1", "hybrid_standard"),
            ("e2", "hybrid_variational"),
            ("e3", "lpn_variational"),
        )
    ]
    assert verdict_of(*pair, *more).next_step.commands[2] == (
        "./launch.sh --config=configs/e3.py --workdir=runs/e3"
        " --config.mode.name=online --config.mode.num_act_steps=8"
    )
    assert "The plan is done" in verdict_of(*pair, *more, *encoders).next_step.what
