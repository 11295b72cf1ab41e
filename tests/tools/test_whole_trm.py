"""A TRM trained by the PyTorch reference, saved as its project saves it: converted and scored here, the same pass@K."""


import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import torch
import yaml

from tests import torch_files
from tests.data.arc import fakes
from tests.torch_files import error
from tools import torch_reference as reference
from trm_jax import evaluate
from trm_jax.data.arc import augment, grids, rows
from trm_jax.data.arc.table import NamedTable
from trm_jax.data.arc.tasks import Pair, Task, TaskError
from trm_jax.errors import ConfigError
from trm_jax.evaluation.evaluator import Evaluator
from trm_jax.evaluation.results import table
from trm_jax.evaluation.trained import load_trained
from trm_jax.run import pretrained, start
from trm_jax.run.mesh import data_mesh
from trm_jax.solve import solve

SIDE, STEPS, UPDATES = 6, 4, 40
ARCH = {"hidden_size": 32, "num_heads": 2, "expansion": 1.0, "L_layers": 1, "H_cycles": 2, "L_cycles": 2,
        "puzzle_emb_len": 2, "pos_encodings": "rope", "mlp_t": False}
HELD = {"a": 60, "b": 60, "c": 40, "d": 60}  # variants of each task that have a row


def tasks() -> list[Task]:
    """Four tasks of recolouring, one of them with two queries, and one ("e") that no row is for."""
    draw = np.random.default_rng(0)

    def pair(shift: int) -> Pair:
        grid = draw.integers(1, 4, (3, 3)).astype(np.uint8)
        return Pair(grid, (grid + shift).astype(np.uint8))

    return [Task(name, tuple(pair(i) for _ in range(3)), tuple(pair(i) for _ in range(1 + (name == "b"))))
            for i, name in enumerate("abcde")]


def names() -> list[str]:
    """Of all rows, as the PyTorch project writes them: blank first, of each task itself first."""
    found = ["<blank>"]
    for task_id, count in HELD.items():
        variants = augment.fixed_variants(task_id, count, seed=99)  # not those that a run of ours would draw
        found += [task_id, *(variant.name(task_id) for variant in variants[1:])]
    return found


def canvases(pairs, variant) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels (N, S) of pairs as a variant shows them."""
    empty = rows.Rows(len(pairs), 1, SIDE)
    visit = rows.Visit(0, [], rows.place(pairs, variant, SIDE))
    for i in range(len(pairs)):
        empty.write(i, visit, i)
    arrays = empty.arrays()
    return arrays["inputs"], arrays["labels"]


def train() -> reference.TRM:
    """On the demonstrations of every row until it solves some of the queries."""
    torch.manual_seed(0)
    named = list(enumerate(names()))[1:]
    decoder = reference.Decoder(**ARCH, seq_len=SIDE**2, puzzle_emb_shape=(len(named) + 1, 32))
    decoder.puzzle_emb.weights.normal_(std=0.1)
    model = reference.TRM(decoder, reference.RowSignSGD(decoder.puzzle_emb.weights, lr=1e-2, weight_decay=0.1))
    optimizer = reference.AdamATan2(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1)
    trainer = reference.Trainer(model, optimizer)
    by_id = {task.id: task for task in tasks()}
    inputs, labels, identifiers = [], [], []
    for row, name in named:
        task_id, variant = augment.parse(name)
        found = canvases(by_id[task_id].demos, variant)
        inputs.append(found[0])
        labels.append(found[1])
        identifiers += [row] * len(found[0])
    data = {"inputs": torch.from_numpy(np.concatenate(inputs)).int(),
            "labels": torch.from_numpy(np.concatenate(labels)), "puzzle_identifiers": torch.tensor(identifiers)}
    draw = np.random.default_rng(1)
    for _ in range(UPDATES):
        chosen = torch.from_numpy(draw.integers(0, len(identifiers), 32))
        for _ in reference.online_batch(trainer, {name: values[chosen] for name, values in data.items()}, 2):
            pass
    return model


def as_text(grid: np.ndarray | None) -> str | None:
    return None if grid is None else "/".join("".join(map(str, row)) for row in grid.tolist())


def scores(model: reference.TRM) -> tuple[dict[str, float], dict[tuple, tuple[str | None, float]]]:
    """pass@1 and pass@2 of the reference's own answers, voted on as its project does; and its answers, mapped back,
    with their halt logits."""
    rows_of: dict[str, list[tuple[int, augment.Variant]]] = {}
    for row, name in list(enumerate(names()))[1:]:
        task_id, variant = augment.parse(name)
        rows_of.setdefault(task_id, []).append((row, variant))
    passed, predicted = {1: [], 2: []}, {}
    for task in tasks()[:-1]:
        ranks = []
        for query, pair in enumerate(task.queries):
            ballots: dict[bytes, list[float]] = {}
            inputs = np.concatenate([canvases([pair], variant)[0] for _, variant in rows_of[task.id]])
            batch = {"inputs": torch.from_numpy(inputs).int(),
                     "puzzle_identifiers": torch.tensor([row for row, _ in rows_of[task.id]])}
            *_, last = reference.evaluate(model, batch, STEPS)
            for number, ((_, variant), canvas, q) in enumerate(zip(
                    rows_of[task.id], last.logits.argmax(-1).numpy().astype(np.uint8), last.q_halt, strict=True)):
                text = as_text(None if (grid := grids.crop(canvas, SIDE)) is None else variant.invert(grid))
                predicted[task.id, query, number] = text, float(q)
                if text is not None:
                    ballots.setdefault(text, []).append(float(q.sigmoid()))
            ranking = sorted(ballots, key=lambda text: (-len(ballots[text]), -np.mean(ballots[text])))
            answer = as_text(pair.output)
            ranks.append(ranking.index(answer) if answer in ranking else len(ranking))
        for k, found in passed.items():
            found.append(np.mean([rank < k for rank in ranks]))
    return {f"pass@{k}": float(np.mean(found)) for k, found in passed.items()}, predicted


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the checkpoint as upstream saves it, its dataset's names, and the tasks; and the model itself."""
    folder, model = tmp_path_factory.mktemp("whole"), train()
    state = {f"inner.{name}": tensor for name, tensor in model.inner.state_dict().items()}
    source = torch_files.write(folder / "source", state, config=ARCH | {
        "halt_max_steps": STEPS, "puzzle_emb_ndim": 32, "loss": {"loss_type": "stablemax_cross_entropy"}})
    (folder / "data" / "train").mkdir(parents=True)
    (folder / "data" / "train" / "dataset.json").write_text(json.dumps({"seq_len": SIDE**2, "sets": ["all"]}))
    (folder / "data" / "identifiers.json").write_text(json.dumps(names()))
    (folder / "tasks" / "evaluation").mkdir(parents=True)
    for task in tasks():
        (folder / "tasks" / "evaluation" / f"{task.id}.json").write_text(json.dumps(fakes.content(task)))
    return folder, source, model


def convert(trained, out, *flags) -> int:
    folder, source, _ = trained
    return torch_files.convert(source, out, f"--identifiers={folder / 'data' / 'identifiers.json'}", *flags)


@pytest.fixture(scope="module")
def converted(trained):
    folder = trained[0]
    assert convert(trained, folder / "run", f"--data=json:{folder / 'tasks'}", "--verify") == 0
    return folder / "run"


def load(run, *changes):
    return load_trained(run, data_mesh(jax.devices()[:1]), changes=("data.max_eval_groups=0", *changes))


def test_the_same_answers_and_the_same_score(trained, converted, tmp_path):
    expected, answers = scores(trained[2])
    assert expected["pass@1"] > 0
    metrics = evaluate.evaluate(load(converted, "eval.batch_size=70"), tmp_path / "out")
    votes = [json.loads(line)["vote"] for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[1:]]
    assert {(task, query, variant): text for task, query, variant, text, _ in votes} == {
        where: text for where, (text, _) in answers.items()}
    np.testing.assert_allclose([vote[4] for vote in votes], [answers[tuple(vote[:3])][1] for vote in votes], atol=1e-4)
    for name, share in expected.items():
        assert metrics[name]["share"] == pytest.approx(share, abs=1e-12)
    assert metrics["predictions"] == len(answers) == 60 + 2 * 60 + 40 + 60
    assert metrics["tasks"] == {"solved": metrics["pass@2"]["solved"], "evaluated": 4, "predicted": 4, "total": 5,
                                "left_out": 0, "without_row": 1}
    assert metrics["protocol"] == "transductive" and metrics["step"] == 7 and metrics["canvas"] == SIDE
    assert "1 of 5 tasks have no row in the embedding table and were left out" in table(metrics)


def test_fewer_variants_vote_where_fewer_are_asked_for(converted, tmp_path):
    plan = Evaluator(load(converted, "eval.augmentations=50").settings, data_mesh(), None, tasks(), tasks(),
                     NamedTable(names())).plan
    assert len(plan) == 50 + 2 * 50 + 40 + 50  # "c" has no more
    assert [plan.table_row(task, 0) for task in range(4)] == [1, 61, 121, 161]
    assert all(plan.variant(task, 0) == augment.IDENTITY for task in range(4))
    with pytest.raises(ConfigError, match=r"eval\.augmentations=61 is more than the data\.variants=60"):
        load(converted, "eval.augmentations=61")
    unknown = dataclasses.replace(tasks()[0], id="x")
    with pytest.raises(TaskError, match=r"1 of 1 tasks have no row in the embedding table \(x\)"):
        solve(unknown, load(converted))


def test_every_key_is_accounted_for_and_goes_back(trained, converted, tmp_path):
    source = trained[1]
    manifest = pretrained.read_manifest(converted)
    assert {key.name: key.parameter for key in manifest.keys}["inner.puzzle_emb.weights"] == "encoder.table"
    assert not [key.name for key in manifest.keys if key.skipped]
    assert torch_files.convert("--export", converted, tmp_path / "step_7") == 0
    state = torch.load(source, weights_only=True)
    torch_files.assert_same_state(tmp_path / "step_7", {
        name.removeprefix(torch_files.PREFIX): tensor for name, tensor in state.items()})
    assert json.loads((tmp_path / "identifiers.json").read_text()) == names()
    config = yaml.safe_load((tmp_path / "all_config.yaml").read_text())
    assert config["seq_len"] == SIDE**2 and config["arch"]["halt_max_steps"] == STEPS  # no shape tells them
    assert start.find(str(converted)).descent[-1].seen  # as a decoder to start from


def test_what_is_missing_or_does_not_fit_is_one_clear_line(trained, converted, tmp_path, capsys):
    source = trained[1]
    assert torch_files.convert(source, tmp_path / "plain") == 0
    assert "their names are missing: give --identifiers=FOLDER/identifiers.json" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"have to have names.*--identifiers=FOLDER/identifiers\.json"):
        evaluate.main([f"--workdir={tmp_path / 'plain'}"])
    shutil.copytree(converted, tmp_path / "nameless")
    (tmp_path / "nameless" / "identifiers.json").write_text(json.dumps([names()[0], *reversed(names()[1:])]))
    one, other = (load_trained(folder, data_mesh()) for folder in (converted, tmp_path / "nameless"))
    assert one.digest != other.digest  # an evaluation begun with the one is not continued with the other
    (tmp_path / "nameless" / "identifiers.json").unlink()
    with pytest.raises(SystemExit, match=r"no identifiers\.json that says which task and variant each row is"):
        evaluate.main([f"--workdir={tmp_path / 'nameless'}"])

    file = tmp_path / "identifiers.json"
    flag = f"--identifiers={file}"
    assert "identifiers.json" in error(capsys, source, tmp_path / "out", flag)  # there is no such file
    file.write_text(json.dumps(names()[:-1]))
    assert "names 220 rows and the table of puzzle embeddings has 221" in error(capsys, source, tmp_path / "out", flag)
    file.write_text(json.dumps([*names()[:-1], "d|||t9|||0123456789"]))
    assert "transform 9 is outside" in error(capsys, source, tmp_path / "out", flag)
    file.write_text(json.dumps(names()))
    torch_files.write_config(source.parent, ARCH | {"hidden_size": 64})
    assert "hidden_size is 32 in the shapes but 64 in all_config.yaml" in error(capsys, source, tmp_path / "out", flag)
    torch_files.write_config(source.parent, ARCH | {"puzzle_emb_ndim": 64})
    assert "puzzle_emb_ndim is 64 in all_config.yaml but 32 in" in error(capsys, source, tmp_path / "out", flag)
    assert not (tmp_path / "out").exists()
