"""What to run next: the branch of the decision tree, and the commands that run it.

Every command is read as training reads it, with the presets of configs/.
"""

import json
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from tests.comparison.fabricate import online_scalars, original_scalars, write_run
from trm_jax import compare
from trm_jax.comparison.judgement import presets
from trm_jax.comparison.judgement.commands import folder_name
from trm_jax.comparison.judgement.plan import NextStep, next_step
from trm_jax.comparison.judgement.presets import NAMES, SIZES, named, preset, preset_of, size_of
from trm_jax.comparison.record.events import RunError
from trm_jax.comparison.record.groups import group_runs
from trm_jax.run import settings

pytestmark = pytest.mark.filterwarnings("ignore:the load_module")  # how ml_collections reads a file
ORIGINAL, ONLINE, TIE, UNDECIDED = "original", "online", "tie", "undecided"
GIVEN = {  # what a user may have started every run with
    "train.load_pretrained_decoder": "my decoders/arc1",
    "arch.L_cycles": 4,
    "optim.lr": 3e-4,
    "optim.ema": False,
    "eval.pass_ks": [1, 2],
}


def config(name: str, size: str = "", **changes) -> dict:
    """The configuration of a preset as a run records it, with `section__field=value` changes."""
    nested = json.loads(import_module(f"configs.{name}").get_config(size).to_json())
    for field, value in changes.items():
        nested[field.partition("__")[0]][field.partition("__")[2]] = value
    return nested


def given(changes: dict) -> dict:
    return {name.replace(".", "__"): value for name, value in changes.items()}


def write(folder: Path, name: str, size: str = "", final: float = 0.95, share: float = 1.0, diverges: bool = False,
          **changes) -> Path:
    """A run of a preset, of which a `share` is done."""
    recorded = config(name, size, **changes)
    path = folder / folder_name(name, size, recorded["train"]["seed"])
    return write_recorded(path, recorded, final, share, diverges)


def write_recorded(path: Path, recorded: dict, final: float = 0.95, share: float = 1.0,
                   diverges: bool = False) -> Path:
    """A run of the configuration `recorded`; one that diverges has no finite loss in its second half."""
    scalars = original_scalars(final) if recorded["mode"]["name"] == ORIGINAL else online_scalars(final)
    if diverges:
        loss = scalars["train/loss"][1]
        loss[len(loss) // 2:] = np.nan
    data, epochs = recorded["data"], recorded["train"]["epochs"]
    done = share * epochs * data["max_train_groups"] / data["global_batch_size"]
    last = max(steps[-1] for steps, _ in scalars.values())
    scaled = {tag: ((steps * done / last).astype(int), values) for tag, (steps, values) in scalars.items()}
    return write_run(path, scaled, recorded)


def step_of(answer: str, *folders: Path) -> NextStep:
    return next_step(answer, group_runs(compare.load_runs([str(folder) for folder in folders], [])))


def parsed(command: str) -> tuple[dict, str]:
    """The configuration and the folder that a command trains, as training reads its command line."""
    words, values = shlex.split(command), flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=words)
    workdir = flags.DEFINE_string("workdir", None, "", flag_values=values)
    values(words)
    return json.loads(holder.value.to_json()), workdir.value


def folders_of(step: NextStep) -> list[str]:
    return [Path(parsed(command)[1]).name for command in step.commands]


# ── Which preset a run is ──


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_known_by_its_configuration(name, size):
    for changes in ({}, GIVEN, {"train.seed": 5}):
        recorded = presets.flat(config(name, size, **given(changes)))
        assert (named(recorded), size_of(recorded)) == (name, size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["o2", "r1", "l3"])
@pytest.mark.parametrize("name", ["e1", "e2", "e3"])
def test_an_encoder_is_known_in_whatever_mode_it_trains(name, mode, size):
    winner = config(mode, size)
    recorded = config(name, size) | {"mode": winner["mode"], "arch": winner["arch"]}
    assert named(presets.flat(recorded)) == name


def test_a_run_that_is_no_preset():
    assert named(presets.flat(config("o1", arch__halt_exploration_prob=0.4))) is None
    assert named(presets.flat(config("l1", mode__num_act_steps=5))) is None
    assert named(presets.flat(config("e1", encoder__set_layers=3))) is None


def test_a_run_without_a_configuration_is_known_by_its_label(tmp_path):
    original, online = original_scalars(), online_scalars()
    for label, scalars, preset_name in (("o2", original, "o2"), ("L1_torch", online, "l1"), ("other", online, None)):
        folder = write_run(tmp_path / label, scalars)
        (group,) = group_runs(compare.load_runs([str(folder)], []))
        assert preset_of(group) == preset_name


def test_presets_that_cannot_be_imported_are_one_line(monkeypatch):
    def nowhere(name):
        raise ModuleNotFoundError("No module named 'configs'")

    monkeypatch.setattr(presets, "import_module", nowhere)
    preset.cache_clear()
    with pytest.raises(RunError, match="repository's root"):
        preset("o1")


def test_presets_are_read_without_jax():
    code = (
        "import sys\nfrom trm_jax.comparison.judgement.presets import size_of\n"
        "size_of({})\nassert 'configs.o1' in sys.modules\n"
        "assert not {'jax', 'flax', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(compare.__file__).parents[1])


# ── The tree ──


@pytest.mark.parametrize(("answer", "branch"), [(ORIGINAL, ["o2", "o3"]), (ONLINE, ["l2", "l3"])])
def test_the_winner_names_the_branch(tmp_path, answer, branch):
    step = step_of(answer, write(tmp_path, "o1"), write(tmp_path, "l1"))
    assert step.commands == tuple(
        f"./launch.sh --config=configs/{name}.py --workdir={tmp_path / name}" for name in branch
    )


def test_only_what_is_missing_of_a_branch_is_run(tmp_path):
    step = step_of(ORIGINAL, *(write(tmp_path, name) for name in ("o1", "l1", "o3")))
    assert folders_of(step) == ["o2"]


def test_an_unfinished_branch_is_finished_before_the_encoders(tmp_path):
    pair = write(tmp_path, "o1"), write(tmp_path, "l1"), write(tmp_path, "o3")
    o2 = write(tmp_path, "o2", share=0.5, **given(GIVEN))
    step = step_of(ORIGINAL, *pair, o2)
    (command,) = step.commands
    assert parsed(command) == (config("o2", **given(GIVEN)), str(o2))


def test_after_the_branch_comes_the_e_series_with_the_best_settings(tmp_path):
    runs = [write(tmp_path, name, final=final) for name, final in (("o1", 0.85), ("l1", 0.75), ("o3", 0.8))]
    runs.append(write(tmp_path, "o2", final=0.99))
    step = step_of(ORIGINAL, *runs)
    assert step.commands[0] == (
        f"./launch.sh --config=configs/e1.py --workdir={tmp_path / 'e1'}"
        " --config.arch.halt_exploration_prob=0.3"
    )
    assert folders_of(step) == ["e1", "e2", "e3"]


@pytest.mark.parametrize("size", SIZES)
def test_the_e_series_under_online_learning_trains_as_its_winner(tmp_path, size):
    finals = {"o1": 0.8, "l1": 0.9, "l2": 0.98, "l3": 0.85}
    runs = [write(tmp_path, name, size, final) for name, final in finals.items()]
    step = step_of(ONLINE, *runs)
    assert folders_of(step) == [folder_name(name, size, 0) for name in ("e1", "e2", "e3")]
    for name, command in zip(("e1", "e2", "e3"), step.commands, strict=True):
        made, winner, own = parsed(command)[0], config("l2", size), config(name, size)
        settings.from_dict(made)  # training takes it
        assert made["mode"] == winner["mode"] and made["train"] == winner["train"]
        assert made["encoder"] == own["encoder"] and made["loss"] == own["loss"]
        assert made["data"] == own["data"]
    encoders = [write_recorded(Path(workdir), made) for made, workdir in map(parsed, step.commands)]
    assert "The plan is done" in step_of(ONLINE, *runs, *encoders).what


def test_an_unfinished_encoder_is_finished_before_the_plan_is_done(tmp_path):
    runs = [write(tmp_path, name) for name in ("o1", "l1", "o2", "o3", "e1", "e2")]
    step = step_of(ORIGINAL, *runs, write(tmp_path, "e3", share=0.3))
    assert folders_of(step) == ["e3"]


def test_a_winner_without_a_configuration_trains_as_its_preset(tmp_path):
    """A PyTorch run: the encoder runs have what training needs for online learning."""
    o1 = write_run(tmp_path / "o1", original_scalars(0.8))
    online = [write_run(tmp_path / name, online_scalars(0.9)) for name in ("l1", "l2", "l3")]
    made, _ = parsed(step_of(ONLINE, o1, *online).commands[1])
    settings.from_dict(made)
    assert made["mode"] == config("l1")["mode"]


# ── What the commands carry over ──


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("answer", [ORIGINAL, ONLINE])
def test_size_and_overrides_go_on_through_the_whole_plan(tmp_path, answer, size):
    runs = [write(tmp_path, name, size, **given(GIVEN)) for name in ("o1", "l1")]
    for _ in range(2):
        for command in step_of(answer, *runs).commands:
            made, workdir = parsed(command)
            name = presets.named(presets.flat(made))
            expected = config(name, size, **given(GIVEN))
            if name in presets.E_SERIES:
                expected["mode"] = config("l1" if answer == ONLINE else "o1", size)["mode"]
                expected["train"] = config("l1" if answer == ONLINE else "o1", size, **given(GIVEN))["train"]
            assert made == expected
            assert workdir == str(tmp_path / folder_name(name, size, 0))
            runs.append(write_recorded(Path(workdir), made))


def test_another_encoder_takes_over_the_demonstrations_but_nothing_of_the_first_encoder(tmp_path):
    changes = {"encoder__pooling_method": "attention", "encoder__max_demos": 4}
    runs = [write(tmp_path, name, **changes) for name in ("o1", "l1", "o2", "o3")]
    assert parsed(step_of(ORIGINAL, *runs[:2]).commands[0])[0] == config("o2", **changes)
    for name, command in zip(presets.E_SERIES, step_of(ORIGINAL, *runs).commands, strict=True):
        assert parsed(command)[0] == config(name, encoder__max_demos=4)


def test_a_length_of_one_s_own_goes_before_that_of_the_preset(tmp_path):
    runs = [write(tmp_path, name, "tiny", train__epochs=20) for name in ("o1", "l1")]
    assert parsed(step_of(ONLINE, *runs).commands[0])[0] == config("l2", "tiny", train__epochs=20)


def test_a_seed_of_one_s_own_stays_and_is_in_the_folder_s_name(tmp_path):
    runs = [write(tmp_path, name, "tiny", train__seed=3) for name in ("o1", "l1")]
    made, workdir = parsed(step_of(ORIGINAL, *runs).commands[0])
    assert made == config("o2", "tiny", train__seed=3)
    assert workdir == str(tmp_path / "o2-tiny_seed3")


def test_the_other_mode_is_run_as_the_first_one_was(tmp_path):
    made, workdir = parsed(step_of(UNDECIDED, write(tmp_path, "o1", "tiny", **given(GIVEN))).commands[0])
    assert (made, workdir) == (config("l1", "tiny", **given(GIVEN)), str(tmp_path / "l1-tiny"))
    made, _ = parsed(step_of(UNDECIDED, write(tmp_path, "l2", "tiny")).commands[0])
    assert made == config("o1", "tiny", mode__num_act_steps=config("o1")["mode"]["num_act_steps"])


@pytest.mark.parametrize("answer", [TIE, UNDECIDED])
def test_an_open_question_adds_a_seed_of_each(tmp_path, answer):
    runs = [write(tmp_path, name, "tiny", **given(GIVEN)) for name in ("o1", "l1")]
    runs.append(write(tmp_path, "o1", "tiny", train__seed=1, **given(GIVEN)))
    first, second = map(parsed, step_of(answer, *runs).commands)
    assert first == (config("o1", "tiny", train__seed=2, **given(GIVEN)), str(tmp_path / "o1-tiny_seed2"))
    assert second == (config("l1", "tiny", train__seed=1, **given(GIVEN)), str(tmp_path / "l1-tiny_seed1"))


@pytest.mark.parametrize("size", SIZES)
def test_an_unfinished_run_goes_on_with_its_own_command(tmp_path, size):
    o1 = write(tmp_path, "o1", size, share=0.5, **given(GIVEN))
    step = step_of(UNDECIDED, o1, write(tmp_path, "l1", size))
    assert "50 %" in step.what
    (command,) = step.commands
    assert parsed(command) == (config("o1", size, **given(GIVEN)), str(o1))


def test_a_run_that_diverged_is_not_to_be_finished(tmp_path):
    """It would diverge again."""
    o1 = write(tmp_path, "o1", share=0.5, diverges=True)
    step = step_of(UNDECIDED, o1, write(tmp_path, "l1"))
    assert "diverged" in step.what and folders_of(step) == ["o1_seed1", "l1_seed1"]
    runs = [write(tmp_path, name) for name in ("o1", "l1", "o3")]
    assert folders_of(step_of(ORIGINAL, *runs, write(tmp_path, "o2", share=0.5, diverges=True))) == ["e1", "e2", "e3"]


def test_an_unfinished_run_that_is_no_preset_goes_on_as_it_was(tmp_path):
    changes = {"mode__encode": "every_step", "arch__halt_exploration_prob": 0.4}
    run = write(tmp_path, "o1", share=0.5, **changes)
    (command,) = step_of(UNDECIDED, run, write(tmp_path, "l1")).commands
    assert parsed(command)[0] == config("o1", **changes)
