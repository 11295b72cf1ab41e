"""What goes wrong around a run: damaged checkpoints, full and read-only disks, folders of others, limits on files.

    python -m benchmarks.faults [--root=FOLDER] [--parts=checkpoints,files,disk,folders,twice]

checkpoints: ten faults, one after another, in one run that has to end bit-identical to the undisturbed one. files: a
limit on the size of a file, under which nothing can be saved. disk: a small tmpfs that fills up under a run, and has
room again. folders: a full disk at the start, a read-only folder, a folder of another user. twice: a second start
beside the first. Each prints the line that the user sees; what hangs or ends otherwise is an error. Mounts and other
users need root: without, these are left out, in a line.
"""

import argparse
import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks import disturbed
from benchmarks.disturbed import STEPS
from trm_jax.run.saved import UNFINISHED

NOBODY = 65534  # a user
PROBLEMS = ("could not be written", "events cannot")
SOLUTIONS = ("saving works again", "written again")
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


def beside(folder: Path) -> None:
    """Puts copies of the latest checkpoint beside it, as a later step and under a name of one's own."""
    for name in (f"{int(folder.name) + 1000}", f"{folder.name} copy"):
        shutil.copytree(folder, folder.with_name(name))


CHECKPOINT_FAULTS: dict[str, Callable[[Path], object]] = {
    "a truncated file": lambda folder: os.truncate(files_of(folder)[-1], 20),
    "a missing file": lambda folder: files_of(folder)[-1].unlink(),
    "one byte changed": flip,
    "an empty folder": emptied,
    "the position in the data gone": lambda folder: shutil.rmtree(folder / "data"),
    "a foreign file": lambda folder: (folder / "state" / "foreign").write_text("x"),
    "a file that may not be read": lambda folder: files_of(folder)[-1].chmod(0),
    "another step's folder in its place": other,
    "step folders copied beside it": beside,
    "a save that was cut off": lambda folder: shutil.copytree(folder, folder.with_name(f"99{UNFINISHED}")),
}


def as_anybody() -> None:
    """Gives up the privileges of root, for which permissions say nothing."""
    nothing, version_3 = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 2)(0x20080522, 0)
    if os.geteuid() == 0 and ctypes.CDLL(None).capset(version_3, nothing):
        raise OSError("capset")


def checkpoints(root: Path) -> None:
    """The faults, each after a few more steps; the start after each tells of it."""
    undisturbed = disturbed.whole(disturbed.config("o1", root), root / "undisturbed")
    workdir, told, fault = root / "damaged", 0, ""
    for number, (name, damage) in enumerate([*CHECKPOINT_FAULTS.items(), ("", lambda _: None)]):
        steps = STEPS if not name else 8 + 2 * number
        code = disturbed.start(disturbed.config("o1", root, **{"train.max_steps": steps}), workdir, as_anybody).wait()
        if code:
            raise RuntimeError(f"{fault}: exit code {code}; see {workdir}.log")
        said = [line for line in disturbed.log_of(workdir)[told:].splitlines() if "is damaged" in line]
        left = [path.name for path in (workdir / "checkpoints").glob(f"*{UNFINISHED}*")]
        if left or (fault and not said and fault != "a save that was cut off"):
            raise RuntimeError(f"{fault}: nothing was said, or {left} is left; see {workdir}.log")
        if fault:
            print(f"{fault}: {said[0].replace(str(root), '') if said else 'cleared'}", flush=True)
        told, fault = len(disturbed.log_of(workdir)), name
        damage(workdir / "checkpoints" / str(steps))
    if json.loads((workdir / disturbed.DIGEST).read_text()) != undisturbed:
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


def said(workdir: Path, process: disturbed.Process, words: tuple[str, ...]) -> None:
    """Waits until a run has said all of these. Raises RuntimeError where it ends before."""
    until = time.monotonic() + 300
    while not all(word in disturbed.log_of(workdir) for word in words):
        if process.ended() is not None or time.monotonic() > until:
            raise RuntimeError(f"nothing says {words}; see {workdir}.log")
        time.sleep(0.1)


def fill(folder: Path) -> Path:
    """Writes a file that takes all room there is; its path."""
    filling = folder / "filling"
    with filling.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(2**12))
    return filling


def disk(root: Path) -> None:
    """A disk that is full from some step on, and has room again when both charts and a save have failed."""
    disc, workdir = root / "disc", root / "full"
    with tmpfs(disc, 24):
        (disc / "run").mkdir()
        workdir.symlink_to(disc / "run")
        process = disturbed.start(disturbed.config("o1", root, **ENDLESS), workdir)
        while not disturbed.latest(workdir):
            time.sleep(0.05)
        filling = fill(disc)
        said(workdir, process, PROBLEMS)
        filling.unlink()
        said(workdir, process, SOLUTIONS)
        process.signal(signal.SIGTERM)
        code = process.wait()
        for words in (*PROBLEMS, *SOLUTIONS, "stopped after"):
            tell(workdir, words)
        print(f"full: exit code {code}", flush=True)


def folders(root: Path) -> None:
    """Folders that cannot be written to."""
    settings = disturbed.config("o1", root, **{"train.max_steps": 1})
    refusing: dict[str, Callable[[Path], object]] = {
        "full-at-start": fill,
        "read-only": lambda disc: subprocess.run(["mount", "-o", "remount,ro", str(disc)], check=True)}
    for name, refuse in refusing.items():
        workdir, disc = root / name, root / f"{name}.disc"
        with tmpfs(disc, 1):
            (disc / "run").mkdir()
            refuse(disc)
            workdir.symlink_to(disc / "run")
            print(f"{name}: exit code {disturbed.start(settings, workdir).wait()}", flush=True)
            tell(workdir, "cannot be written to")
    workdir = root / "another-users"
    workdir.mkdir(mode=0o755)
    os.chown(workdir, NOBODY, NOBODY)
    print(f"another-users: exit code {disturbed.start(settings, workdir, as_anybody).wait()}", flush=True)
    tell(workdir, "cannot be written to")


def twice(root: Path) -> None:
    """The same command, started again beside itself."""
    workdir = root / "twice"
    settings = disturbed.config("o1", root, **ENDLESS)
    first = disturbed.start(settings, workdir)
    while not disturbed.latest(workdir):
        time.sleep(0.05)
    print(f"twice: exit code of the second {disturbed.start(settings, workdir).wait()}", flush=True)
    first.signal(signal.SIGTERM)
    print(f"twice: exit code of the first {first.wait()}", flush=True)
    tell(workdir, "is in use by")


PARTS = {"checkpoints": checkpoints, "files": files, "disk": disk, "folders": folders, "twice": twice}
AS_ROOT = ("disk", "folders")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder for the runs; a temporary one where none is given")
    parser.add_argument("--parts", default=",".join(PARTS))
    flags = parser.parse_args(argv)
    root = (flags.root or Path(tempfile.mkdtemp())).absolute()
    root.mkdir(parents=True, exist_ok=True)
    for part in flags.parts.split(","):
        if part in AS_ROOT and os.geteuid():
            print(f"{part}: left out, for it takes root to mount a disk", flush=True)
            continue
        for old in root.iterdir():
            if old.name != "xla":
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        disturbed.prepare(root)
        PARTS[part](root)


if __name__ == "__main__":
    main(sys.argv[1:])
