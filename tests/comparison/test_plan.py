"""The plan's tree, walked by the suite with the real judge over runs that never took place."""

import json
import re
from importlib import import_module
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from tests.comparison.fabricate import diverging, run, scalars, until
from tests.comparison.judging import commands, verdict_of
from tools import suite
from trm_jax import compare
from trm_jax.comparison import plan
from trm_jax.comparison.verdict import ONLINE, ORIGINAL

pytestmark = pytest.mark.filterwarnings("ignore:the load_module")  # how ml_collections reads a file
ALL_E = ["e1", "e2", "e3"]


def tiny(*names, seeds=3):
    return [f"{name}-tiny" + (f"_seed{seed}" if seed else "") for name in names for seed in range(seeds)]


class World:
    """Trains at once: runs end as `truth` has it, preset → final exact accuracy or None for one that diverges."""

    def __init__(self, root, **truth):
        self.root, self.truth, self.stages, self.stops_early, self.stop = root, truth, [], set(), 1000

    def train(self, runs, options):
        self.stages.append([Path(planned.workdir).name for planned in runs])
        for planned in runs:
            final, preset = self.truth.get(planned.preset, 0.9), planned.preset
            mode = planned.overrides.get("mode.name")
            found = scalars(preset if mode is None else "l1", 0.9 if final is None else final, seed=planned.seed,
                            noise=0.002,
                            every=50)
            found = diverging(found) if final is None else found
            name = Path(planned.workdir).name
            if name in self.stops_early:
                self.stops_early.remove(name)
                found = until(self.stop, found)
            for old in (self.root / name).glob("events*"):
                old.unlink()
            run(self.root, preset, planned.seed, planned.size, planned.overrides, found=found)

    def walk(self, *arguments):
        options = suite.parse(["plan", "--config-suffix=:tiny", f"--root={self.root}",
                               f"--out={self.root.parent / 'report'}", *arguments])
        suite.walk_plan(options, self.train)
        return self.stages


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(compare.curves, "charts", lambda *_: [])  # drawing them is most of the time of a comparison
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.mark.parametrize(("truth", "branch"), [({"o1": 0.95, "l1": 0.5}, ["o2", "o3"]),
                                               ({"o1": 0.5, "l1": 0.95, "l2": 0.99}, ["l2", "l3"])])
def test_the_winner_names_the_branch_and_its_best_the_encoders(root, truth, branch, capsys):
    stages = World(root, e2=0.6, **truth).walk()
    assert stages == [tiny("o1", "l1"), tiny(*branch), tiny(*ALL_E)]
    printed = capsys.readouterr().out
    assert "suite: the plan is done" in printed and re.search("Encoders by final exact accuracy: e[13]-tiny", printed)


def test_a_tie_gets_more_seeds_and_then_the_cheaper_mode(root, capsys):
    world = World(root, o1=0.9, l1=0.9)
    stages = world.walk("--max-seeds=4")
    assert stages[:2] == [tiny("o1", "l1"), ["o1-tiny_seed3", "l1-tiny_seed3"]]
    assert stages[2] in (tiny("o2", "o3"), tiny("l2", "l3")) and len(stages) == 4
    printed = capsys.readouterr().out
    assert "Nothing tells them apart with 4 seeds; this is no finding, but the numbers lean to" in printed


def test_what_cannot_be_told_apart_is_followed_where_it_leans_and_says_so(root, capsys):
    world = World(root)
    finals = {"o1": [0.95, 0.6, 0.8, 0.7], "l1": [0.7, 0.9, 0.85, 0.8]}
    train = world.train

    def train_apart(runs, options):
        for planned in runs:
            world.truth[planned.preset] = finals.get(planned.preset, [0.9] * 4)[planned.seed]
            train([planned], options)

    world.train = train_apart
    stages = world.walk("--max-seeds=4")
    baselines = [name for stage in stages for name in stage if name[:2] in ("o1", "l1")]
    assert sorted(baselines) == sorted(tiny("o1", "l1", seeds=4))
    assert stages[-2][0] == "e1-tiny" or stages[-1] == ["e3-tiny_seed2"]
    assert "Nothing tells them apart with 4 seeds" in capsys.readouterr().out


def test_divergence_decides_and_where_all_diverge_nothing_is_run_for_ever(root, tmp_path):
    assert World(root, o1=None, l1=0.9).walk()[1] == tiny("l2", "l3")
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(suite.SuiteError, match="Every run diverged"):
        World(other, o1=None, l1=None).walk()


def test_an_interrupted_plan_goes_on_where_it_stands(root):
    first = World(root, o1=0.5, l1=0.95)
    first.stops_early, first.stop = {"l2-tiny_seed1"}, 2400  # of 2500 batches, before it is scored
    options = suite.parse(["plan", "--config-suffix=:tiny", f"--root={root}"])
    first.train(suite.planned(options, ["o1", "l1", "l2"]), options)
    again = World(root, o1=0.5, l1=0.95)
    again.stops_early = {"o1-tiny_seed1"}
    stages = again.walk()
    assert stages == [tiny("o1", "l1"), ["o1-tiny_seed1"], ["l2-tiny_seed1", *tiny("l3")], tiny(*ALL_E)]


def test_a_run_that_never_gets_to_its_end_is_not_run_for_ever(root):
    world = World(root, o1=0.5, l1=0.95)
    world.stops_early = {"o1-tiny"}
    train = world.train
    world.train = lambda runs, options: (world.stops_early.add("o1-tiny"), train(runs, options))
    with pytest.raises(suite.SuiteError, match=r"asks again for .*o1-tiny, which has been run"):
        world.walk()


def test_one_seed_is_followed_only_where_no_more_are_allowed(root, capsys):
    assert World(root, o1=0.2, l1=0.95).walk("--max-seeds=1")[:2] == [tiny("o1", "l1", seeds=1),
                                                                      tiny("l2", "l3", seeds=1)]


def test_other_runs_in_the_folder_are_left_alone(root, capsys):
    run(root, "o1", final=0.1)  # full size
    (root / "notes").mkdir()
    (root / "o2-tiny_seed7").mkdir()  # killed before it logged anything
    World(root, o1=0.95, l1=0.5).walk()
    assert capsys.readouterr().out.count("left out of the comparison") == 3  # at every stage, and only that one
    groups = json.loads((root.parent / "report" / "summary.json").read_text())["groups"]
    assert {group["size"] for group in groups} == {"tiny"}


# ── Commands ──


def parsed(line):
    """The configuration and the folder that a command trains, as training reads its command line."""
    words, values = ["train", *line], flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=words)
    workdir = flags.DEFINE_string("workdir", None, "", flag_values=values)
    values(words)
    return json.loads(holder.value.to_json()), workdir.value


def preset_config(name, size="", **changes):
    nested = json.loads(import_module(f"configs.{name}").get_config(size).to_json())
    for field, value in changes.items():
        nested[field.partition("__")[0]][field.partition("__")[2]] = value
    return nested


GIVEN = {"optim.lr": 3e-4, "optim.ema": False, "train.load_pretrained_decoder": "my decoders/arc1",
         "eval.pass_ks": [1, 2]}


@pytest.mark.parametrize("better", [ORIGINAL, ONLINE])
def test_what_a_run_was_given_goes_on_through_the_whole_plan(tmp_path, better):
    finals = {"o1": 0.95, "l1": 0.5} if better == ORIGINAL else {"o1": 0.5, "l1": 0.95}
    found = [run(tmp_path, name, seed, "tiny", GIVEN, final=final)
             for name, final in finals.items() for seed in range(2)]
    given = {name.replace(".", "__"): value for name, value in GIVEN.items()}
    for _ in range(2):
        step = verdict_of(*found).next_step
        for planned in step.runs:
            made, workdir = parsed(plan.command(planned)[1:])
            assert workdir == planned.workdir == str(tmp_path / plan.folder_name(planned.preset, "tiny", planned.seed))
            expected = preset_config(planned.preset, "tiny", train__seed=planned.seed, **given)
            if planned.preset in ALL_E and better == ONLINE:
                expected["mode"] = preset_config("l1", "tiny")["mode"]
                expected["train"] |= {"epochs": 20_000, "log_every_steps": 25}  # as the fabricated L1 has them
            assert made == expected
            found.append(run(tmp_path, planned.preset, planned.seed, "tiny", planned.overrides))
    assert [Path(path).name[:2] for path in found[-6:]] == [name for name in ALL_E for _ in range(2)]


def test_the_best_of_the_branch_lends_the_encoders_its_settings(tmp_path):
    found = [run(tmp_path, name, seed, final=final) for name, final in
             (("o1", 0.8), ("l1", 0.5), ("o2", 0.97), ("o3", 0.7)) for seed in range(3)]
    planned = verdict_of(*found).next_step.runs[0]
    assert (planned.preset, dict(planned.overrides)) == ("e1", {"arch.halt_exploration_prob": 0.3})


def test_the_other_mode_gets_what_the_first_was_given(tmp_path):
    step = verdict_of(run(tmp_path, "o1", 3, "tiny", {"optim.lr": 1e-3})).next_step
    (planned,) = step.runs
    assert (planned.preset, planned.seed, planned.overrides["optim.lr"]) == ("l1", 3, 1e-3)
    assert plan.arguments(planned)[-1] == "--config.train.seed=3"


def test_seeds_are_added_until_both_have_the_same(tmp_path):
    found = [run(tmp_path, "o1", seed, final=0.9, noise=0.05) for seed in (0, 5)] + [run(tmp_path, "l1", 0, final=0.88)]
    assert commands(verdict_of(*found)) == ["o1_seed1", "l1_seed1", "l1_seed5"]
