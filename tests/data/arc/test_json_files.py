"""ARC's JSON as people bring it: read where its meaning is plain, named for what it is where it is not."""

import codecs
import gzip
import io
import json
import zipfile

import numpy as np
import pytest

from tests.data.arc import fakes
from trm_jax.data.arc import sources
from trm_jax.data.arc.tasks import TaskError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 5\n"


@pytest.fixture
def contents():
    """Four tasks in ARC's JSON form, by id."""
    rng = np.random.default_rng(0)
    return {name: fakes.content(fakes.task(rng, name, largest=4)) for name in "abcd"}


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return file


def challenges(prefix, contents, solutions=True):
    """PREFIX_challenges.json, and its answers beside it."""
    asked = {name: content | {"test": [{"input": pair["input"]} for pair in content["test"]]}
             for name, content in contents.items()}
    write(prefix.with_name(f"{prefix.name}_challenges.json"), asked)
    if solutions:
        answers = {name: [pair["output"] for pair in content["test"]] for name, content in contents.items()}
        write(prefix.with_name(f"{prefix.name}_solutions.json"), answers)


def ids(found):
    return [task.id for task in found]


def refused(source) -> str:
    with pytest.raises(TaskError) as error:
        sources.load(source)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- Bytes ------------------------------------------------------------------------------------------------


def test_a_byte_order_mark_is_read(tmp_path, contents):
    file = write(tmp_path / "a.json", codecs.BOM_UTF8 + json.dumps(contents["a"]).encode())
    assert ids(sources.load(f"json:{tmp_path}").train) == ["a"]
    assert sources.read_task(str(file)).id == "a"


def zipped(text):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.json", text)
    return packed.getvalue()


@pytest.mark.parametrize(("encode", "message"), [
    (lambda text: text.encode("utf-16"), "is text in UTF-16"),
    (lambda text: text.encode("utf-16-le"), "is text in UTF-16"),
    (lambda text: text.encode("utf-16-be"), "is text in UTF-16"),
    (lambda text: gzip.compress(text.encode()), "is compressed with gzip"),
    (zipped, "is a zip archive"),
    (lambda text: POINTER.encode(), "is a Git LFS pointer"),
])
def test_what_is_no_text_in_utf_8_is_named_for_what_it_is(encode, message, tmp_path, contents):
    file = write(tmp_path / "tasks" / "a.json", encode(json.dumps(contents["a"])))
    for source in (file.parent, file):
        assert refused(f"json:{source}").startswith(f"{file} {message}")
    with pytest.raises(TaskError, match=message):
        sources.read_task(str(file))


def test_one_odd_entry_leaves_the_others_of_a_file(tmp_path, contents):
    file = write(tmp_path / "tasks.json", {"a": contents["a"], "meta": "v1"})
    found = sources.load(f"json:{file}")
    assert ids(found.train) == ["a"] and "task meta: not of the form" in found.left_out[0]


def test_a_folder_of_packed_files_says_so(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.json.gz", gzip.compress(b"{}"))
    assert refused(f"json:{tmp_path}") == (
        f"{tmp_path}: holds no .json task file, but 2 *.gz files; unpack them first")


# ---- Folders and files ------------------------------------------------------------------------------------


def test_the_download_of_the_arc_prize(tmp_path, contents):
    folder = tmp_path / "arc-prize-2025"
    challenges(folder / "arc-agi_training", {"b": contents["b"], "a": contents["a"]})
    challenges(folder / "arc-agi_evaluation", {"c": contents["c"]})
    challenges(folder / "arc-agi_test", {"d": contents["d"]}, solutions=False)
    write(folder / "sample_submission.json", {"d": [{"attempt_1": [[0]], "attempt_2": [[0]]}]})
    for source in (folder, tmp_path, folder / "arc-agi"):
        found = sources.load(f"json:{source}")
        assert [ids(found.train), ids(found.evaluation), found.held_out] == [["a", "b"], ["c"], True]
        assert found.evaluation[0].answers and not found.left_out


def test_one_challenges_file_makes_no_split(tmp_path, contents):
    challenges(tmp_path / "arc-agi_evaluation", contents)
    found = sources.load(f"json:{tmp_path / 'arc-agi_evaluation_challenges.json'}")
    assert ids(found.evaluation) == list("abcd") and not found.held_out
    assert all(task.answers for task in found.evaluation)
    line = refused(f"json:{tmp_path / 'arc-agi_evaluation_solutions.json'}")
    assert line.endswith("holds answers only: give arc-agi_evaluation_challenges.json beside it")


def test_several_sets_in_one_folder_are_named(tmp_path, contents):
    for name in ("x", "y"):
        challenges(tmp_path / f"{name}_training", {name: contents["a"]})
    line = refused(f"json:{tmp_path}")
    assert line == f"json:{tmp_path} holds 2 sets of tasks: write json:{tmp_path / 'x'} or json:{tmp_path / 'y'}"


def test_a_clone_of_arc_agi_is_its_data_folder(tmp_path, contents):
    for name, subset in zip("abc", ("training", "training", "evaluation"), strict=True):
        write(tmp_path / "data" / subset / f"{name}.json", contents[name])
    write(tmp_path / "apps" / "package.json", {"name": "viewer"})
    found = sources.load(f"json:{tmp_path}")
    assert [ids(found.train), ids(found.evaluation), found.held_out] == [["a", "b"], ["c"], True]


def test_nested_folders_are_read_and_hidden_files_are_none(tmp_path, contents):
    for name, folder in zip("abc", ("AboveBelow", "Center/deeper", "."), strict=True):
        write(tmp_path / "corpus" / folder / f"{name}.json", contents[name])
    write(tmp_path / "corpus" / "AboveBelow" / "._a.json", b"\0\x05\x16\x07")
    write(tmp_path / "__MACOSX" / "b.json", b"\0\x05\x16\x07")
    write(tmp_path / ".git" / "c.json", {})
    found = sources.load(f"json:{tmp_path}")
    assert ids(found.train) == list("abc") and not found.held_out and not found.left_out


def test_a_task_in_each_line(tmp_path, contents):
    first = json.dumps(contents["b"] | {"id": "b", "note": "one\u2028line"}, ensure_ascii=False)
    lines = [first, "", json.dumps(contents["a"])]
    file = write(tmp_path / "set.jsonl", "\n".join(lines).encode())
    for source in (file, tmp_path):
        assert ids(sources.load(f"json:{source}").train) == ["b", "set-00003"]
    several = write(tmp_path / "list" / "set.json", [json.loads(first), contents["a"]])
    assert ids(sources.load(f"json:{several}").train) == ["b", "set-00002"]
    file.write_text("\n".join([*lines, "{"]))
    assert refused(f"json:{file}").startswith(f"{file}: line 4: malformed JSON: ")


def test_one_file_of_one_task_is_a_set_of_one(tmp_path, contents):
    assert ids(sources.load(f"json:{write(tmp_path / 'a.json', contents['a'])}").evaluation) == ["a"]


def test_solving_a_file_of_many_says_so(tmp_path, contents):
    challenges(tmp_path / "x_evaluation", contents)
    with pytest.raises(TaskError, match="holds 4 tasks: give a file of one"):
        sources.read_task(str(tmp_path / "x_evaluation_challenges.json"))


def test_a_path_begins_at_home_and_holds_variables(tmp_path, contents, monkeypatch):
    write(tmp_path / "tasks" / "a.json", contents["a"])
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ARC", "tasks")
    assert ids(sources.load("json:~/$ARC").train) == ["a"]
    monkeypatch.chdir(tmp_path)  # a run's own source may be relative to another folder
    for source in ("json:a/b", "npy:a/b"):
        assert f" in {tmp_path}, where this command was started" in refused(source)
    assert sources.read_task("~/tasks/a.json").id == "a"


# ---- Odd tasks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cells", "reason"), [
    ([[0] * 31], "is 1x31, larger than 30x30"),
    ([], "is not a non-empty list of non-empty rows"),
    ([["red"]], "holds something other than whole numbers"),
])
def test_an_odd_task_is_left_out_with_its_reason(cells, reason, tmp_path, contents):
    contents["b"]["train"][0]["output"] = cells
    for name, content in contents.items():
        write(tmp_path / "files" / f"{name}.json", content)
    challenges(tmp_path / "x", contents)
    for source in (tmp_path / "files", tmp_path / "x"):
        found = sources.load(f"json:{source}")
        assert ids(found.train) == list("acd")
        (line,) = found.left_out
        assert line.endswith(f"task b: train[0].output: {reason}")
    with pytest.raises(TaskError, match=reason):
        sources.read_task(str(tmp_path / "files" / "b.json"))


def test_nothing_but_odd_tasks_is_an_error(tmp_path, contents):
    for name, content in contents.items():
        write(tmp_path / f"{name}.json", content | {"test": []})
    line = refused(f"json:{tmp_path}")
    assert "task a: has no test inputs" in line and line.endswith("(and 3 more that cannot be read)")
