"""From a run folder to metrics.json, submission.json and report.html."""

import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest

from tests import trained_run
from tests.stand_ins import nothing, oracle, stand_in
from trm_jax.data.arc import sources
from trm_jax.data.arc.voting import Votes
from trm_jax.data.split import load_tasks
from trm_jax.errors import ConfigError
from trm_jax.evaluate import default_out, evaluate
from trm_jax.evaluation.gallery import page
from trm_jax.evaluation.results import table
from trm_jax.evaluation.trained import load_trained
from trm_jax.run.ancestry import ANCESTRY_FILE
from trm_jax.run.lock import LOCK_FILE
from trm_jax.run.mesh import data_mesh

ROWS = 45  # 3 variants of 15 queries: eight tasks with 1, 2, 3, 1, 2, 3, 1, 2
ONE = 1


@pytest.fixture(scope="module")
def folder(trained_folder, tmp_path_factory):
    """Tasks, a run, and room for results."""
    folder = tmp_path_factory.mktemp("evaluate")
    for name in ("tasks", "run"):
        (folder / name).symlink_to(trained_folder / name)
    return folder


def load(folder, devices=ONE, *changes, step="latest"):
    return load_trained(folder / "run", data_mesh(jax.devices()[:devices]), step, changes)


@pytest.fixture(scope="module")
def trained(folder):
    """One model, compiled once for each batch size that a test asks for."""
    return load(folder)


@pytest.fixture(scope="module")
def finished(folder, trained):
    """The folder of an evaluation that was never interrupted."""
    evaluate(trained, folder / "finished")
    return folder / "finished"


def with_batch(trained, rows):
    config = dataclasses.replace(trained.settings.eval, batch_size=rows)
    return dataclasses.replace(trained, settings=dataclasses.replace(trained.settings, eval=config))


def stopping(trained, batches):
    """The same model, interrupted after so many batches."""
    left = iter(range(batches))

    def predict(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return trained.predict(*arguments)

    return dataclasses.replace(trained, predict=predict)


def test_the_three_numbers_and_what_was_left_out(folder, finished, trained):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["tasks"] == {"solved": 0, "evaluated": 8, "predicted": 8, "total": 10, "left_out": 2}
    assert metrics["predictions"] == ROWS and metrics["step"] == trained_run.STEP
    assert [name for name in metrics if name.startswith("pass@")] == ["pass@1", "pass@2", "pass@5"]
    assert metrics["pass@1"]["low"] == 0 and 0.3 < metrics["pass@1"]["high"] < 0.33
    assert 0 < metrics["accuracy"] < 1 and metrics["steps"] == 3
    text = table(metrics)
    assert "solved 0 / evaluated 8 / total 10 tasks" in text
    assert "pass@2 " in text and "pass@5" not in text  # of three variants
    assert "2 of 10 tasks do not fit 6x6 and were left out" in text
    assert metrics["encoder"]["encoder_relative_var"] > 0 and "context: variance / mean square" in text
    assert metrics["by_task"] == {f"t{i}": 0.0 for i in range(8)}
    assert sum(metrics["mistakes"].values()) == 14  # of 15 queries one has no known answer
    assert [path.name for path in finished.glob(".*")] == [LOCK_FILE]

    submission = json.loads((finished / "submission.json").read_text())
    assert len(submission) == 10 and [len(submission[f"t{i}"]) for i in range(8)] == [1, 2, 3, 1, 2, 3, 1, 2]
    assert submission["wide0"] == [{"attempt_1": [[0]], "attempt_2": [[0]]}]


def test_the_parameters_are_the_average_and_the_run_is_only_read(folder, trained):
    before = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*")}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(load(folder).params))
    assert {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*")} == before


def test_interrupted_and_continued_is_the_same(folder, finished, trained):
    """Between batches, within a line, and with another batch size."""
    out = folder / "continued"
    with pytest.raises(KeyboardInterrupt):
        evaluate(stopping(trained, 2), out)
    assert sorted(path.name for path in out.iterdir()) == [LOCK_FILE, "predictions.jsonl"]
    predictions = out / "predictions.jsonl"
    assert len(predictions.read_text().splitlines()) == 1 + 16  # the second batch was under way
    with predictions.open("a") as file:
        file.write('{"row":16,"vo')
    with pytest.raises(KeyboardInterrupt):
        evaluate(stopping(with_batch(trained, 7), 3), out)
    assert len(predictions.read_text().splitlines()) == 1 + 28
    evaluate(trained, out)
    for name in ("metrics.json", "submission.json", "report.html"):
        assert (out / name).read_bytes() == (finished / name).read_bytes(), name

    def refuse(*_):
        raise AssertionError("nothing is left to predict")

    evaluate(dataclasses.replace(trained, predict=refuse), out)
    assert (out / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()


def test_neither_batch_size_nor_devices_matter(folder, finished, trained):
    evaluate(with_batch(trained, 7), folder / "seven")
    evaluate(load(folder, 8, "eval.batch_size=8"), folder / "devices")
    expected = json.loads((finished / "metrics.json").read_text())
    for name in ("seven", "devices"):
        metrics = json.loads((folder / name / "metrics.json").read_text())
        assert metrics.pop("encoder") == pytest.approx(expected["encoder"], rel=1e-4)
        computed = metrics.pop("computed")
        assert (computed["devices"], computed["batch_size"]) == {"seven": (ONE, 7), "devices": (8, 8)}[name]
        assert computed["forward_dtype"] == "float32"
        assert metrics == {key: value for key, value in expected.items() if key not in ("encoder", "computed")}


def test_rows_that_want_to_halt_stop_early_with_q(folder):
    trained = load(folder, ONE, "eval.halt=q", "eval.augmentations=2")
    metrics = evaluate(trained, folder / "q")
    assert metrics["halt"] == "q" and 1 < metrics["steps"] < 3
    assert default_out(trained).relative_to(folder / "run").parts[0] == "evaluation"
    names = {default_out(dataclasses.replace(trained, settings=dataclasses.replace(
        trained.settings, data=dataclasses.replace(trained.settings.data, source=f"json:{start}/{'äb/' * 100}")))).name
        for start in "ab"}
    assert len(names) == 2 and max(len(name.encode()) for name in names) < 255


def test_latent_search_is_scored_beside_the_score_without_it(folder, finished, trained):
    """Interrupted and continued, by other steps refused, and the same on eight devices."""
    search, out = ("eval.search_steps=2", "eval.search_lr=0.3"), folder / "searched"
    searching = load(folder, ONE, *search)
    with pytest.raises(KeyboardInterrupt):
        evaluate(stopping(searching, 2), out)
    with pytest.raises(ConfigError, match=r"another evaluation \(eval.search_steps: 2 there, 3 here\)"):
        evaluate(load(folder, ONE, "eval.search_steps=3", search[1]), out)
    with pytest.raises(ConfigError, match=r"another evaluation \(eval.search_steps: 2 there, 0 here; eval.search_lr: "):
        evaluate(trained, out)
    found, plain = evaluate(searching, out), json.loads((finished / "metrics.json").read_text())
    assert found["search"] == {"steps": 2, "lr": 0.3} and not {"search", "without_search"} & plain.keys()
    before = found["without_search"]
    assert before["solved"] == 0 and before["by_task"] == plain["by_task"]
    for name in ("pass@1", "pass@2", "pass@5", "accuracy", "exact_accuracy", "steps"):
        assert before[name] == plain[name], name
    assert found["demo_loss"] < before["demo_loss"] and found["accuracy"] != before["accuracy"]
    lines, off = ([json.loads(line) for line in (folder / name / "predictions.jsonl").read_text().splitlines()[1:]]
                  for name in ("searched", "finished"))
    assert [line["without_search"]["vote"][:4] for line in lines] == [line["vote"][:4] for line in off]
    assert all(line.keys() == {"row", "vote", "metrics"} for line in off)
    assert all(line["metrics"]["demo_loss"] <= line["without_search"]["metrics"]["demo_loss"] for line in lines)
    text, report = table(found), embedded(out)[0]
    said = "latent search, 2 steps of 0.3: solved 0 of 8 tasks, 0 without it; token loss of the demonstrations"
    assert f"note: {said}" in text and "pass@2, without search" in text
    assert said in report and "pass@2, without search" in report
    assert default_out(searching).name == default_out(trained).name + "-search2"

    eight = evaluate(load(folder, 8, "eval.batch_size=8", *search), folder / "searched-8")
    loss = found.pop("demo_loss"), before.pop("demo_loss")
    assert (eight.pop("demo_loss"), eight["without_search"].pop("demo_loss")) == pytest.approx(loss, rel=1e-4)
    for name in found.keys() - {"encoder", "computed"}:
        assert eight[name] == found[name], name


def embedded(out):
    text = (out / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)  # nothing is fetched
    return text, json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])


def test_the_report_shows_every_task(folder, finished):
    text, data = embedded(finished)
    assert [task["id"] for task in data["tasks"]] == [f"t{i}" for i in range(8)] + ["wide0", "wide1"]
    assert {task["status"] for task in data["tasks"]} == {"unsolved", "left_out"}
    assert "2 of 10 tasks do not fit" in text and "context: variance / mean square" in text
    query = data["tasks"][0]["queries"][0]
    assert query["predictions"] == 3 and sum(found["votes"] for found in query["attempts"]) <= 3
    assert "answer" not in data["tasks"][7]["queries"][1]  # it is not known


def test_solved_tasks_are_told_from_those_solved_in_part(folder, trained):
    perfect = evaluate(dataclasses.replace(trained, predict=stand_in(oracle)), folder / "oracle")
    assert perfect["tasks"]["solved"] == perfect["tasks"]["evaluated"] == 8 and perfect["exact_accuracy"] == 1
    assert all(perfect[f"pass@{k}"]["share"] == 1 for k in (1, 2, 5))
    _, data = embedded(folder / "oracle")
    assert [task["status"] for task in data["tasks"]] == ["solved"] * 8 + ["left_out"] * 2
    answers = json.loads((folder / "oracle" / "submission.json").read_text())["t1"]
    source = json.loads((folder / "tasks" / "evaluation" / "t1.json").read_text())
    assert [answer["attempt_1"] for answer in answers] == [query["output"] for query in source["test"]]

    task = sources.read_task(str(folder / "tasks" / "evaluation" / "t1.json"))
    votes = Votes()
    votes.add(task.id, 0, 0, task.queries[0].output, 0.0)
    votes.add(task.id, 1, 0, None, 0.0)
    built = page.build(perfect, (task,), votes, len(task.demos))
    assert '"label":"1 of 2 solved"' in built and '"shown":""' in built
    text = page.build(perfect, (dataclasses.replace(task, demos=task.demos * 300),), votes, 2)
    assert f'"shown":"demonstrations 1\\u20132 of {300 * len(task.demos)}"' in text and len(text) < len(built) + 100


def test_predictions_without_any_grid_still_make_a_submission(folder, trained):
    metrics = evaluate(dataclasses.replace(trained, predict=stand_in(nothing)), folder / "nothing")
    assert metrics["tasks"]["solved"] == 0 and metrics["tasks"]["evaluated"] == 8
    submission = json.loads((folder / "nothing" / "submission.json").read_text())
    none = {"attempt_1": [[0]], "attempt_2": [[0]]}
    assert all(attempts == none for task in submission.values() for attempts in task)
    assert embedded(folder / "nothing")[1]["tasks"][0]["queries"][0]["attempts"] == []


def test_another_source_and_what_a_score_of_it_means(folder, trained):
    """The run's source makes no train tasks; a folder without a split gives its tasks to both sides."""
    copy = folder / "copy"
    shutil.copytree(folder / "run", copy / "run")
    config = json.loads((copy / "run" / "config.json").read_text())
    config["data"]["source"] += "/evaluation"
    (copy / "run" / "config.json").write_text(json.dumps(config))
    (copy / "run" / ANCESTRY_FILE).write_text(json.dumps({"held_out_note": "note: it has seen the answers"}))
    metrics = evaluate(dataclasses.replace(load(copy, ONE, step="best"), predict=trained.predict), copy / "out")
    best, pretrained, seen = metrics["notes"]
    assert "best of its run" in best and pretrained == "it has seen the answers"
    assert seen == "8 of the 8 evaluated tasks were trained on: their score is not held out"
    assert "\nnote: it has seen the answers" in table(metrics)
    assert "<li>it has seen the answers</li>" in embedded(copy / "out")[0]

    (itself,) = trained.descent
    moved = dataclasses.replace(itself, data=itself.data | {"source": "json:nowhere"})
    metrics = evaluate(dataclasses.replace(trained, descent=(moved,)), folder / "moved")
    assert "cannot be told: json:nowhere: no such folder" in metrics["notes"][0] and metrics["protocol"] == "not told"


def test_the_settings_can_be_changed(folder):
    found = load(folder, ONE, "eval.pass_ks=(1,3)", "data.max_eval_groups=2", "eval.halt=q").settings
    assert found.eval.pass_ks == (1, 3) and found.data.max_eval_groups == 2 and found.eval.halt == "q"
    assert len(load_tasks(found.data).evaluation) == 2


def test_an_evaluation_is_not_mixed_with_another(folder, finished, trained):
    before = (finished / "predictions.jsonl").read_bytes()
    more = load(folder, ONE, "eval.augmentations=4")
    with pytest.raises(ConfigError, match=r"another evaluation \(eval.augmentations: 3 there, 4 here\)"):
        evaluate(more, finished)
    other = dataclasses.replace(more, params=jax.tree.map(lambda p: p + 1, trained.params), settings=trained.settings)
    with pytest.raises(ConfigError, match="weights: "):
        evaluate(other, finished)
    with pytest.raises(ConfigError, match=r"\(devices: 1 there, 8 here\)"):
        evaluate(load(folder, 8), finished)
    with pytest.raises(ConfigError, match="forward_dtype: 'float32' there, 'bfloat16' here"):
        evaluate(load(folder, ONE, "arch.forward_dtype=bfloat16"), finished)
    assert (finished / "predictions.jsonl").read_bytes() == before
