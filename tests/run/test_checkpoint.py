"""Checkpoints: what is found damaged before it is used, what is kept, and what becomes of saves that fail."""

import errno
import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trm_jax.dynamics.state import TrainState
from trm_jax.errors import ConfigError
from trm_jax.run import checkpoint, saved
from trm_jax.run.checkpoint import Checkpoints, SaveError, restore_fields

KEEP = 3


def state(step, **parts):
    fields = {"params": {"w": jnp.full((64, 8), float(step))}, "buffers": {"b": jnp.ones(2)}, "ema": None,
              "opt": {"m": jnp.zeros(8)}, "carry": None} | parts
    return TrainState(step=jnp.int32(step), samples=jnp.int32(0), key=jax.random.key_data(jax.random.key(0)), **fields)


def w(found):
    return float(found.params["w"][0, 0])


@pytest.fixture
def lines():
    return []


@pytest.fixture
def opened(tmp_path, lines):
    """Makes the Checkpoints of one workdir, as each start of a run does; all are closed at the end."""
    made = []

    def make(**settings):
        made.append(Checkpoints(tmp_path, **{"keep": KEEP, "say": lines.append} | settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def run(tmp_path, opened):
    """A run with checkpoints of steps 5, 10 and 15."""
    checkpoints = opened()
    for step in (5, 10, 15):
        checkpoints.save(state(step), {"at": step})
    checkpoints.watch(wait=True)
    return tmp_path


def largest(folder):
    return max((path for path in (folder / "state").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def overwrite(folder):
    file = largest(folder)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES = {
    "truncated": (lambda folder: largest(folder).write_bytes(largest(folder).read_bytes()[:20]), "has 20 bytes, not"),
    "overwritten": (overwrite, "does not hold what was written"),
    "a file gone": (lambda folder: largest(folder).unlink(), "is missing"),
    "an item gone": (lambda folder: shutil.rmtree(folder / "data"), "data/ is missing"),
    "a foreign file": (lambda folder: (folder / "state" / "x").write_text(""), "state/x was not saved with it"),
    "empty": (empty, "it is empty"),
    "no sums": (lambda folder: (folder / "checksums.json").write_text("{"), "checksums.json is malformed"),
    "another's": (lambda folder: (shutil.rmtree(folder), shutil.copytree(folder.parent / "5", folder)),
                  "it is a copy of step 5"),
    "a file for it": (lambda folder: (shutil.rmtree(folder / "state"), (folder / "state").write_text("")),
                      "state/ is missing"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_set_aside_and_the_one_before_is_used(kind, run, opened, lines):
    damage, words = DAMAGES[kind]
    damage(run / "checkpoints" / "15")
    number, fields, log = restore_fields(run, "latest", {"params": state(0).params})
    assert number == 10 and float(fields["params"]["w"][0, 0]) == 10
    assert len(log) == 1 and words in log[0] and log[0].startswith("checkpoint 15 is damaged (")
    found, position = opened().restore(state(0))
    assert w(found) == 10 and position == {"at": 10}
    (line,) = lines
    assert line.startswith("checkpoint 15 is damaged (") and words in line and line.endswith("15.damaged")
    assert saved.saved_steps(run) == [5, 10] and (run / "checkpoints" / "15.damaged").exists()


def test_one_that_may_not_be_read_is_damaged(run, monkeypatch):
    def denied(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(saved, "_sha256", denied)
    with pytest.raises(saved.Damaged, match=r"checkpoints/15/.*: Permission denied"):
        saved.check(run / "checkpoints" / "15")


def test_a_damaged_one_is_refused_where_it_is_asked_for_by_number(run):
    overwrite(run / "checkpoints" / "15")
    with pytest.raises(ConfigError, match=r"15 is damaged: state/.* does not hold what was written"):
        restore_fields(run, "15", {"params": state(0).params})


def test_folders_that_are_no_checkpoints_do_not_disturb(run, opened, lines):
    here = run / "checkpoints"
    shutil.copytree(here / "15", here / "15 copy")
    shutil.copytree(here / "15", here / "20")
    (here / "015").mkdir()
    (here / "7").write_text("")
    found, _ = opened().restore(state(0))
    assert w(found) == 15 and lines == [
        f"checkpoint 20 is damaged (it is a copy of step 15): set aside as {here / '20.damaged'}"]


def test_where_none_is_whole_there_is_none(run, opened, lines):
    for step in (5, 10, 15):
        overwrite(run / "checkpoints" / str(step))
    assert opened().restore(state(0)) is None and len(lines) == 3
    with pytest.raises(ConfigError, match="no checkpoint in"):
        restore_fields(run, "latest", {"params": state(0).params})


def test_checkpoints_of_versions_without_checksums_are_read_and_scored(run, opened, lines):
    for step, score in ((5, 0.5), (10, 0.25)):
        folder = run / "checkpoints" / str(step)
        (folder / "metrics").mkdir()
        (folder / "metrics" / "metrics").write_text(json.dumps({"eval/pass@2": score}))
        (folder / "checksums.json").unlink()
    (run / "checkpoints" / "15" / "checksums.json").unlink()
    assert saved.best_step(run) == 5 and w(opened().restore(state(0))[0]) == 15
    assert restore_fields(run, "best", {"params": state(0).params})[0] == 5
    for file in (run / "checkpoints" / "15" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    assert w(opened().restore(state(0))[0]) == 10 and "checkpoint 15 is damaged (" in lines[-1]


def test_another_versions_state_is_one_line(run, opened):
    for like, words in ((state(0, opt={"m": jnp.zeros(8), "v": jnp.zeros(8)}), r"opt\.v is missing there, \(8,\) here"),
                        (state(0, opt={}), r"opt\.m \(8,\) there, not known here"),
                        (state(0, opt={"m": jnp.zeros(9)}), r"opt\.m \(8,\) there, \(9,\) here")):
        with pytest.raises(ConfigError, match=rf"saved by another version of trm_jax \({words}\): continue with"):
            opened().restore(like)
    assert saved.saved_steps(run) == [5, 10, 15]


def test_the_latest_and_the_best_are_kept(tmp_path, opened):
    checkpoints = opened(keep=2)
    for step, score in ((1, (0.5, 0.1)), (2, (0.5, 0.9)), (3, (0.25, 0.99)), (4, None), (5, (0.5, 0.2))):
        checkpoints.save(state(step), {})
        if score:
            checkpoints.add_scores(step, dict(zip(saved.BEST_BY, score, strict=True)))
    checkpoints.watch(wait=True)
    assert saved.saved_steps(tmp_path) == [2, 4, 5] and saved.best_step(tmp_path) == 2 and checkpoints.latest == 5
    assert checkpoints.scored(5) and not checkpoints.scored(4)
    assert restore_fields(tmp_path, "best", {"params": state(0).params})[0] == 2
    saved.check(checkpoints.path(2))  # scores do not break the seal


def test_left_overs_of_saves_that_were_killed_are_cleared(run, opened):
    half = run / "checkpoints" / f"20{saved.UNFINISHED}"
    shutil.copytree(run / "checkpoints" / "15", half)
    assert w(opened().restore(state(0))[0]) == 15 and not half.exists()


@pytest.fixture
def disk(monkeypatch):
    """A disk that is full while `full` is set."""
    full, seal = [True], saved.seal

    def on_disk(*args):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        seal(*args)

    monkeypatch.setattr(saved, "seal", on_disk)
    monkeypatch.setattr(checkpoint, "RETRY_S", 0.01)
    return full


def test_a_run_outlives_a_full_disk(tmp_path, opened, disk, lines):
    checkpoints = opened(give_up_minutes=1)
    checkpoints.save(state(5), {})
    checkpoints.watch(wait=True)
    assert lines == ["the checkpoint of step 5 could not be written (No space left on device); there is none before "
                     "it; the run goes on and tries again"]
    assert saved.saved_steps(tmp_path) == [] and not list(tmp_path.glob(f"checkpoints/*{saved.UNFINISHED}"))
    while not checkpoints.due:
        pass
    disk.clear()
    checkpoints.finish(state(6), {})
    assert lines[1:] == ["checkpoint of step 6 written: saving works again"] and not checkpoints.due
    disk.append(True)
    checkpoints.save(state(7), {})
    checkpoints.watch(wait=True)
    assert "; the latest is of step 6; " in lines[-1] and checkpoints.latest == 6


def test_a_failed_save_is_known_without_waiting_for_the_next(tmp_path, opened, disk, lines):
    checkpoints = opened(give_up_minutes=1)
    checkpoints.save(state(5), {})
    while not lines:
        checkpoints.watch()
    assert "of step 5 could not be written (No space left on device)" in lines[0]


def test_what_fails_with_a_save_is_told_in_no_tracebacks(tmp_path):
    program = ("import gc, resource, signal, sys\nfrom pathlib import Path\nimport numpy as np\n"
               "from trm_jax.run.arrays import Background\n"
               "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
               "resource.setrlimit(resource.RLIMIT_FSIZE, (2**12, resource.RLIM_INFINITY))\n"
               "writer = Background(lambda: None)\n"
               "noise = {f'a{i}': np.random.default_rng(i).random(2**12) for i in range(8)}\n"
               "try:\n    writer.save(Path(sys.argv[1]) / '1', noise, {})\n    writer.check(wait=True)\n"
               "except Exception as error:\n    print('File too large' in str(error))\n"
               "gc.collect()\n")
    found = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert found.stdout == "True\n" and not found.stderr


def test_a_run_gives_up_in_the_end(opened, disk):
    with pytest.raises(SaveError, match=r"of step 5 could not be written .*; given up after 0.002 minutes"):
        opened(give_up_minutes=0.002).finish(state(5), {})
    with pytest.raises(SaveError, match="given up after 0 minutes"):
        opened(give_up_minutes=0).finish(state(5), {})


def test_time_makes_a_save_due(opened, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    checkpoints, never = opened(every_minutes=10), opened()
    now[0] = 599
    assert not checkpoints.due
    now[0] = 600
    assert checkpoints.due and not never.due
    checkpoints.save(state(1), {})
    checkpoints.watch(wait=True)
    assert not checkpoints.due


def test_a_reader_looks_again_when_the_training_beside_it_deletes_a_step(run, monkeypatch):
    check = saved.check

    def deleted_meanwhile(folder):
        if folder.name == "15" and folder.exists():
            saved._delete(folder)
        check(folder)

    monkeypatch.setattr(saved, "check", deleted_meanwhile)
    number, _, log = restore_fields(run, "latest", {"params": state(0).params})
    assert number == 10 and not log


def test_shards_are_restored_as_they_were(run, opened):
    found, _ = opened().restore(jax.eval_shape(lambda: state(0)))
    np.testing.assert_array_equal(found.params["w"], np.full((64, 8), 15.0))
