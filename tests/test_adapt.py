"""Tasks never seen: what training may see of them, starting from another run, adapting to them, and what scores say."""

import json
import shutil

import jax
import numpy as np
import pytest

from tests import tiny
from tests.preset_runs import TRM, assert_same_bits, devices, eager_runs, preset
from tests.sharing import make_step
from trm_jax import adapt, solve
from trm_jax.errors import ConfigError
from trm_jax.evaluate import evaluate
from trm_jax.evaluation.trained import load_trained
from trm_jax.run import ancestry
from trm_jax.run.machine import resolve
from trm_jax.run.mesh import data_mesh
from trm_jax.run.saved import saved_steps
from trm_jax.train import fresh_state, train


def transductive(source, **train_overrides):
    config = preset("o1", source, **train_overrides)
    config.data.update(training_tasks=False, evaluation_demos=True, queries="all", augment=True)  # o1's very program
    return config


@pytest.fixture(scope="module")
def base_run(source, tmp_path_factory):
    """A held-out run of four steps, scored."""
    folder = tmp_path_factory.mktemp("base") / "run"
    with devices(1), eager_runs():
        train(preset("o1", source, max_steps=4), folder)
    return folder


@pytest.fixture
def other_answers(source, tmp_path):
    """The same tasks with another answer to each query of an evaluation task."""
    for file in source.glob("*/*.json"):
        task = json.loads(file.read_text())
        if file.parent.name == "evaluation":
            for query in task["test"]:
                query["output"] = [[9]]
        copy = tmp_path / "others" / file.parent.name / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(json.dumps(task))
    return tmp_path / "others"


def test_evaluation_answers_never_reach_training(source, other_answers, tmp_path, one_device, capsys):
    """Its scores say that they are transductive."""
    whole = train(transductive(source, max_steps=5), tmp_path / "whole")
    assert "scores on evaluation tasks are: transductive" in (printed := capsys.readouterr().out)
    assert "; transductive: solved" in printed
    assert_same_bits(whole, train(transductive(other_answers, max_steps=5), tmp_path / "others"))
    trained = load_trained(tmp_path / "whole", data_mesh())
    metrics = evaluate(trained, tmp_path / "results")
    assert metrics["protocol"] == "transductive" and json.loads(
        (tmp_path / "results" / "metrics.json").read_text())["protocol"] == "transductive"
    assert any("demonstrations of 4 of the 4 evaluated tasks" in note for note in metrics["notes"])
    assert "transductive" in (tmp_path / "results" / "report.html").read_text().split("<title>")[1].split("</title>")[0]


def test_a_run_starts_from_another_with_a_fresh_optimiser(base_run, source, tmp_path, one_device, eager, capsys):
    """From its averaged weights, which evaluation uses; the line of descent is written down."""
    config = preset("l1", source, init_from=f"{base_run}@4", max_steps=1)
    train(config, tmp_path / "run")
    settings, _ = resolve(tiny.settings(config), data_mesh())
    begun, _, _ = fresh_state(make_step(settings, data_mesh(), tiny.TASKS).init, settings)
    trained = load_trained(base_run, data_mesh())
    assert_same_bits((begun.params, begun.ema, begun.buffers), (trained.params, trained.params, trained.buffers))
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(begun.opt))
    descent, note = ancestry.read(tmp_path / "run")
    assert [ancestor.name for ancestor in descent] == [f"the run {base_run} at step 4"] and note is None
    assert "clean" not in capsys.readouterr().out
    assert load_trained(tmp_path / "run", data_mesh()).protocol(()).word == "held out"


def test_a_decoder_is_taken_from_a_run_and_says_what_that_had_seen(base_run, source, tmp_path, one_device, capsys):
    train(transductive(source, init_from=str(base_run), max_steps=1), tmp_path / "seen")
    config = preset("o1", source, load_pretrained_decoder=str(tmp_path / "seen"), max_steps=1)
    train(config, tmp_path / "run")
    printed = capsys.readouterr().out
    assert f"transductive: the run {tmp_path / 'seen'} at step 1 was trained on the demonstrations of 4" in printed
    assert "encoder: " in printed and "initialised fresh" in printed
    descent, note = ancestry.read(tmp_path / "run")
    assert [ancestor.seen for ancestor in descent] == [None, "data.evaluation_demos"] and note is None
    trained = load_trained(tmp_path / "run", data_mesh())
    assert evaluate(trained, tmp_path / "results")["protocol"] == "transductive"


@pytest.mark.parametrize(("changes", "message"), [
    ({"train.init_from": "nothing"}, "no converted checkpoint at nothing: there is no such folder"),
    ({"train.init_from": "RUN@99"}, "no checkpoint of step 99"),
    ({"train.init_from": "RUN", "arch.H_cycles": 1}, "set --config.arch.H_cycles=2"),
    ({"train.init_from": "RUN", "encoder.num_layers": 2}, "set --config.encoder.num_layers=1"),
    ({"train.init_from": "RUN", "train.load_pretrained_decoder": "RUN"}, "starts from a whole model"),
    ({"train.init_from": "RUN", **TRM}, "is 'embedding' in the config and 'standard' in .* and a table is no "
                                        "encoder: train.load_pretrained_decoder takes the decoder alone"),
])
def test_what_cannot_be_started_from(changes, message, base_run, source, tmp_path, one_device):
    config = preset("o1", source, max_steps=1)
    config.update_from_flattened_dict({
        name: value.replace("RUN", str(base_run)) if isinstance(value, str) else value
        for name, value in changes.items()})
    with pytest.raises(ConfigError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_adapt_trains_on_demonstrations_and_scores(base_run, source, tmp_path, one_device, capsys):
    command = [f"--workdir={base_run}", f"--data=json:{source / 'evaluation' / 'e0000002.json'}", "--steps=3",
               f"--out={tmp_path / 'out'}"]
    adapt.main(command)
    printed = capsys.readouterr().out
    assert "adapted" in printed and "1 train task" in printed and "solved" in printed
    assert saved_steps(tmp_path / "out") == [3]
    (results,) = (tmp_path / "out" / "evaluation").iterdir()
    found = json.loads((results / "metrics.json").read_text())
    assert found["protocol"] == "adapted" and found["tasks"]["evaluated"] == 1
    adapt.main(command)  # continues: nothing is left to do
    assert saved_steps(tmp_path / "out") == [3]


def test_solve_adapts_to_the_task_without_its_answer(base_run, source, tmp_path, one_device, capsys):
    task, content = tmp_path / "task.json", json.loads((source / "evaluation" / "e0000001.json").read_text())
    task.write_text(json.dumps({"../e 1": content}))
    solve.main([f"--workdir={base_run}", str(task), "--adapt=3", f"--json={tmp_path / 'found.json'}"])
    assert "(adapted)" in capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text())["protocol"] == "adapted"
    (written,) = (base_run / "adapted").glob("-e-1-*.tasks/-e-1.json")
    assert [set(query) for query in json.loads(written.read_text())["../e 1"]["test"]] == [{"input"}]
    solve.main([f"--workdir={base_run}", str(task)])
    assert "(held out)" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_named_and_a_run_of_which_nothing_may_be_written_is_adapted_elsewhere(
        base_run, source, tmp_path, one_device, capsys):
    shutil.copytree(base_run, run := tmp_path / "run", ignore=shutil.ignore_patterns("adapted"))
    shutil.copytree(run / "checkpoints" / "4", run / "checkpoints" / "5")
    (run / "adapted").write_text("")  # in the way
    words = [f"--workdir={run}", str(source / "evaluation" / "e0000001.json"), "--adapt=3"]
    with pytest.raises(SystemExit) as stopped:
        solve.main(words)
    assert str(stopped.value).startswith(f"error: --out={run / 'adapted'}")
    assert "cannot be written to (" in str(stopped.value)
    solve.main([*words, f"--out={tmp_path / 'out'}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "checkpoint 5 is damaged (it is a copy of step 4) and was passed by"
    assert f"task e0000001, answered by {tmp_path / 'out'} at step 3 (adapted)" in lines
    for field in ("init_from", "load_pretrained_decoder"):
        train(preset("o1", source, max_steps=1, **{field: str(run)}), tmp_path / field)
        assert lines[0] in capsys.readouterr().out


def test_cores_are_chosen_for_the_batches_asked_for(base_run, source, tmp_path, monkeypatch):
    def told(*rows):
        raise ConfigError(f"{rows}")

    monkeypatch.setattr(adapt, "use_cores", told)
    with pytest.raises(SystemExit, match=r"\(7, 5\)"):
        adapt.main([f"--workdir={base_run}", f"--data=json:{source}", f"--out={tmp_path / 'out'}",
                    "--config.data.global_batch_size=7", "--config.eval.batch_size=5"])
    config = json.loads((base_run / "config.json").read_text())
    config["train"]["microbatches"] = 5  # which divides no batch of adapting
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = adapt.changed(tmp_path, "json:a", 1, [], devices=3)
    assert (found.data.global_batch_size, found.train.microbatches) == (33, 0)


@pytest.mark.parametrize(("words", "message"), [
    (["--steps=0"], "0 steps of adaptation: at least 1"),
    (["--config.optim.lrr=1"], "unknown field of config.optim 'lrr'"),
    (["--data=json:nowhere"], "nowhere"),
    (["--config.train.epochs=7"], "--config.train.epochs cannot be set here: it follows from --steps"),
    (["--config.train.init_from=a"], "it follows from --workdir and --step"),
    (["--out=/proc/out", "--steps=1"], "--out=/proc/out cannot be written to ("),
])
def test_what_cannot_be_adapted(words, message, base_run, source, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        adapt.main([f"--workdir={base_run}", f"--data=json:{source}", f"--out={tmp_path / 'out'}", *words])
    assert str(stopped.value).startswith("error: ") and message in str(stopped.value)
    assert not (tmp_path / "out").exists()
