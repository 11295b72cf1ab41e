"""What goes wrong around a run: damaged checkpoints, full and read-only disks, folders of others, limits on files.

    python -m benchmarks.faults [--root=FOLDER] [--parts=checkpoints,files,disk,folders]   (disk, folders: as root)

checkpoints: eight faults, one after another, in one run that has to end bit-identical to the undisturbed one. files: a
limit on the size of a file, under which nothing can be saved. disk: a small tmpfs that fills up under a run, and has
room again. folders: a read-only folder; a folder of another user; a second start beside the first. Each prints the line
that the user sees; what hangs or ends otherwise is an error.
"""

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import disturbed
from trm_jax.run.saved import UNFINISHED

NOBODY = 65534
ENDLESS = {"train.epochs": 10**6, "train.eval_interval": 10**6}


def files_of(folder: Path) -> list[Path]:
    """The files of a checkpoint's arrays, the largest last."""
    return sorted(filter(Path.is_file, (folder / "state").rglob("*")), key=lambda path: path.stat().st_size)


def flip(folder: Path) -> None:
    """Changes one byte in the middle of the largest file."""
    content = bytearray(files_of(folder)[-1].read_bytes())
    content[len(content) // 2] ^= 255
    files_of(folder)[-1].write_bytes(content)


def other(folder: Path) -> None:
    """Puts the checkpoint before in its place."""
    before = max((path for path in folder.parent.iterdir() if path.name.isdecimal() and path != folder),
                 key=lambda path: int(path.name))
    shutil.rmtree(folder)
    shutil.copytree(before, folder)


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


CHECKPOINT_FAULTS: dict[str, Callable[[Path], object]] = {
    "a truncated file": lambda folder: os.truncate(files_of(folder)[-1], 20),
    "a missing file": lambda folder: files_of(folder)[-1].unlink(),
    "one byte changed": flip,
    "an empty folder": emptied,
    "the position in the data gone": lambda folder: shutil.rmtree(folder / "data"),
    "a foreign file": lambda folder: (folder / "state" / "foreign").write_text("x"),
    "another step's folder in its place": other,
    "a save that was cut off": lambda folder: shutil.copytree(folder, folder.with_name(f"99{UNFINISHED}")),
}


def checkpoints(root: Path) -> None:
    """The eight faults, each after a few more steps."""
    undisturbed = disturbed.whole(disturbed.config("o1", root), root / "undisturbed")
    workdir = root / "damaged"
    for number, (name, damage) in enumerate(CHECKPOINT_FAULTS.items()):
        steps = 8 + 3 * number
        code = disturbed.start(disturbed.config("o1", root, **{"train.max_steps": steps}), workdir).wait()
        if code:
            raise RuntimeError(f"exit code {code}; see {workdir}.log")
        damage(workdir / "checkpoints" / str(steps))
        seen = len(disturbed.log_of(workdir))
        disturbed.start(disturbed.config("o1", root, **{"train.max_steps": steps + 1}), workdir).wait()
        said = disturbed.log_of(workdir)[seen:].splitlines()
        line = next((line for line in said if "is damaged" in line), "(nothing)")
        print(f"{name}: {line.replace(str(root), '')}", flush=True)
    if disturbed.whole(disturbed.config("o1", root), workdir) != undisturbed:
        raise RuntimeError(f"{workdir} does not end as the undisturbed run")
    print(f"{len(CHECKPOINT_FAULTS)} checkpoint faults in one run: its end is bit-identical", flush=True)


def tell(workdir: Path, words: str) -> None:
    """Prints the first line of the log with these words. Raises RuntimeError where there is none."""
    lines = [line for line in disturbed.log_of(workdir).splitlines() if words in line]
    if not lines:
        raise RuntimeError(f"nothing says {words!r} in {workdir}.log")
    print(f"{workdir.name}: {lines[0].replace(str(workdir.parent), '')}", flush=True)


def files(root: Path) -> None:
    """Files of 64 kB at most, as a quota: charts and checkpoints cannot be written, and nothing waits for them."""
    workdir = root / "limited"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, resource.RLIM_INFINITY))

    changes = ENDLESS | {"checkpoint.give_up_minutes": 0.25, "train.log_every_steps": 1}
    settings = disturbed.config("o1", root, **changes)
    code = disturbed.start(settings, workdir, limit).wait()
    tell(workdir, "could not be written")
    tell(workdir, "given up after")
    print(f"limited: exit code {code}", flush=True)


@contextmanager
def tmpfs(folder: Path, megabytes: float) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={int(megabytes * 1024)}k", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def disk(root: Path) -> None:
    """A disk that is full from some step on, and has room again when both charts and a save have failed."""
    disc, workdir = root / "disc", root / "full"
    with tmpfs(disc, 24):
        (disc / "run").mkdir()
        workdir.symlink_to(disc / "run")
        filling = disc / "filling"
        process = disturbed.start(disturbed.config("o1", root, **ENDLESS), workdir)
        while not disturbed.latest(workdir):
            time.sleep(0.05)
        with filling.open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(2**12))
                except OSError:
                    break
        while not all(words in disturbed.log_of(workdir) for words in ("could not be written", "events cannot")):
            if process.ended() is not None:
                raise RuntimeError(f"the run ended on a full disk; see {workdir}.log")
            time.sleep(0.1)
        filling.unlink()
        while not all(words in disturbed.log_of(workdir) for words in ("saving works again", "written again")):
            time.sleep(0.1)
        process.signal(signal.SIGTERM)
        code = process.wait()
        for words in ("could not be written", "events cannot", "saving works again", "written again", "stopped after"):
            tell(workdir, words)
        print(f"full: exit code {code}", flush=True)


def folders(root: Path) -> None:
    """Folders that cannot be written to, and one that is written to already."""
    settings = disturbed.config("o1", root, **{"train.max_steps": 1})

    def as_nobody() -> None:
        os.setgid(NOBODY)
        os.setuid(NOBODY)

    workdir, disc = root / "read-only", root / "disc"
    with tmpfs(disc, 1):
        (disc / "run").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", str(disc)], check=True)
        workdir.symlink_to(disc / "run")
        print(f"read-only: exit code {disturbed.start(settings, workdir).wait()}", flush=True)
        tell(workdir, "cannot be written to")
    workdir = root / "another-users"
    workdir.mkdir(mode=0o755)
    workdir.with_suffix(".log").touch()
    os.chmod(workdir.with_suffix(".log"), 0o666)
    code = disturbed.start(settings, workdir, as_nobody).wait()
    if "LookupError" in disturbed.log_of(workdir):
        print("another-users: not tried, for this Python may not be read by others", flush=True)
    else:
        print(f"another-users: exit code {code}", flush=True)
        tell(workdir, "cannot be written to")
    workdir = root / "twice"
    settings = disturbed.config("o1", root, **ENDLESS)
    first = disturbed.start(settings, workdir)
    while not disturbed.latest(workdir):
        time.sleep(0.05)
    print(f"twice: exit code of the second {disturbed.start(settings, workdir).wait()}", flush=True)
    first.signal(signal.SIGTERM)
    print(f"twice: exit code of the first {first.wait()}", flush=True)
    tell(workdir, "is in use by")


PARTS = {"checkpoints": checkpoints, "files": files, "disk": disk, "folders": folders}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder for the runs; a temporary one where none is given")
    parser.add_argument("--parts", default=",".join(PARTS))
    flags = parser.parse_args(argv)
    root = (flags.root or Path(tempfile.mkdtemp())).absolute()
    root.mkdir(parents=True, exist_ok=True)
    for part in flags.parts.split(","):
        for old in root.iterdir():
            if old.name != "xla":
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        disturbed.prepare(root)
        PARTS[part](root)


if __name__ == "__main__":
    main(sys.argv[1:])
