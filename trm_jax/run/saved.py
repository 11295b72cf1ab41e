"""The folders of a run's checkpoints: which are there, which are whole, what they scored, which are kept.

    checkpoints/N/               everything after N batches
        state/ data/             arrays and position in the data, see `arrays`
        checksums.json           written with them: step, and size and SHA-256 of every file
        scores.json              held-out scores, added once it has been evaluated
    checkpoints/N.damaged[-2]/   what was found not to be as it was written, set aside
"""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from trm_jax.errors import ConfigError
from trm_jax.run.files import write

CHECKSUMS_FILE = "checksums.json"
SCORES_FILE = "scores.json"
UNFINISHED = ".orbax-checkpoint-tmp"  # what the name of a folder ends with that is being written
LIBRARY_FILES = ("_CHECKPOINT_METADATA", "commit_success.txt")  # the library's own, written last
ITEMS = ("state", "data")
BEST_BY = ("eval/pass@2", "eval/accuracy")


class Damaged(Exception):
    """A checkpoint that is not as it was written; says what is wrong."""


def folder_of(workdir: Path) -> Path:
    """Where the checkpoints of the run in `workdir` are."""
    return (workdir / "checkpoints").absolute()


def saved_steps(workdir: Path) -> list[int]:
    """Steps of the complete checkpoints of the run in `workdir`, which need not exist.

    Raises:
        ConfigError: nobody may look.
    """
    try:
        names = [entry.name for entry in os.scandir(folder_of(workdir)) if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        names = []
    except OSError as error:
        raise ConfigError(f"{folder_of(workdir)} cannot be read ({error.strerror})") from None
    return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)


def seal(folder: Path, step: int | None = None) -> None:
    """Writes CHECKSUMS_FILE of all that stands in the checkpoint `folder`; `step` of a run's."""
    files = {str(path.relative_to(folder)): [path.stat().st_size, _sha256(path)] for path in _files(folder)}
    write(folder / CHECKSUMS_FILE, json.dumps({"step": step, "files": files}, indent=1))


def check(folder: Path, items: Collection[str] = ITEMS) -> None:
    """Reads a whole checkpoint. One of a version that wrote no checksums passes where its parts are there.

    Args:
        items: folders that it has to have; those of a run's.

    Raises:
        Damaged: it is not what was written.
    """
    try:
        found = {str(path.relative_to(folder)): path for path in _files(folder)}
        missing = [item for item in items if not (folder / item).is_dir()]
        if missing:
            raise Damaged("it is empty" if not found else f"{missing[0]}/ is missing")
        if not (folder / CHECKSUMS_FILE).exists():
            return
        sums = json.loads((folder / CHECKSUMS_FILE).read_text(encoding="utf-8"))
        if sums["step"] is not None and sums["step"] != int(folder.name):
            raise Damaged(f"it is a copy of step {sums['step']}")
        for name, (size, digest) in sums["files"].items():
            if name not in found:
                raise Damaged(f"{name} is missing")
            if found[name].stat().st_size != size:
                raise Damaged(f"{name} has {found[name].stat().st_size} bytes, not {size}")
            if _sha256(found[name]) != digest:
                raise Damaged(f"{name} does not hold what was written")
        foreign = sorted(found.keys() - sums["files"].keys())
        if foreign:
            raise Damaged(f"{foreign[0]} was not saved with it")
    except OSError as error:
        raise Damaged(f"{error.filename or folder}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise Damaged(f"{CHECKSUMS_FILE} is malformed") from None


def set_aside(folder: Path) -> Path:
    """Renames a damaged checkpoint, so that it is none any more; returns its new path. Raises OSError."""
    path, number = folder.with_name(f"{folder.name}.damaged"), 1
    while path.exists():
        number += 1
        path = folder.with_name(f"{folder.name}.damaged-{number}")
    return folder.rename(path)


def scores(workdir: Path) -> dict[int, dict[str, float]]:
    """Step → held-out scores, of the checkpoints that have been evaluated."""
    found: dict[int, dict[str, float]] = {}
    for step in saved_steps(workdir):
        folder = folder_of(workdir) / str(step)
        for file in (folder / SCORES_FILE, folder / "metrics" / "metrics"):  # the latter in runs of older versions
            try:
                found.setdefault(step, dict(json.loads(file.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError):
                continue
    return found


def add_scores(workdir: Path, step: int, values: Mapping[str, float]) -> None:
    """Stores held-out scores with the checkpoint of `step`. Raises OSError."""
    write(folder_of(workdir) / str(step) / SCORES_FILE, json.dumps(dict(values)))


def best_step(workdir: Path, among: Collection[int] | None = None) -> int | None:
    """The checkpoint with the highest BEST_BY, the later one among equals; None where none has been evaluated."""
    found = {step: values for step, values in scores(workdir).items() if among is None or step in among}
    return max(found, key=lambda step: (*(found[step].get(tag, 0.0) for tag in BEST_BY), step), default=None)


def choose(workdir: Path, which: str) -> tuple[int, list[str]]:
    """The step that "latest", "best" or a number means of a run, and lines about damaged ones that were passed by.

    Raises:
        ConfigError: it means none, or a damaged one.
    """
    if which not in ("latest", "best") and not which.isdecimal():
        raise ConfigError(f"step {which!r} is neither a number nor one of latest, best")
    log: list[str] = []
    passed: set[int] = set()
    while True:
        step = _named(workdir, which, [step for step in saved_steps(workdir) if step not in passed], log)
        folder = folder_of(workdir) / str(step)
        try:
            check(folder)
            return step, log
        except Damaged as damage:
            if not folder.exists():
                continue  # a training has deleted it
            if which.isdecimal():
                raise ConfigError(f"checkpoint {folder} is damaged: {damage}") from None
            passed.add(step)
            log.append(f"checkpoint {step} is damaged ({damage}) and was passed by")


def _named(workdir: Path, which: str, steps: list[int], log: list[str]) -> int:
    """The step among `steps` that `which` means. Raises ConfigError where it means none."""
    folder = folder_of(workdir)
    if not steps:
        raise ConfigError("; ".join([f"no checkpoint in {folder}", *log]))
    if which == "latest":
        return steps[-1]
    if which == "best":
        best = best_step(workdir, steps)
        if best is None:
            raise ConfigError("; ".join([f"no checkpoint in {folder} has been scored: none is the best", *log]))
        return best
    if int(which) not in steps:
        raise ConfigError(f"no checkpoint of step {which} in {folder}; there are: {', '.join(map(str, steps))}")
    return int(which)


def prune(workdir: Path, keep: int) -> None:
    """Deletes all checkpoints but the latest `keep` and the best. Raises OSError."""
    steps, best = saved_steps(workdir), best_step(workdir)
    for step in steps[:-keep]:
        if step != best:
            _delete(folder_of(workdir) / str(step))


def clear(workdir: Path) -> None:
    """Deletes what saves and deletions that were cut off have left."""
    for path in folder_of(workdir).glob(f"*{UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def _delete(folder: Path) -> None:
    """Deletes a checkpoint; one that is half deleted is no checkpoint any more."""
    shutil.rmtree(folder.rename(folder.with_name(f"{folder.name}.deleted{UNFINISHED}")))


def _files(folder: Path) -> list[Path]:
    """The files of a checkpoint but those that are written after its checksums, and hidden ones at its top."""
    own = (CHECKSUMS_FILE, SCORES_FILE, *LIBRARY_FILES)
    return [path for path in sorted(folder.rglob("*")) if path.is_file()
            and not (path.parent == folder and (path.name in own or path.name.startswith(".")))]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
