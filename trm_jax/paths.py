"""Paths as people write them, and what a file is that is not what it was taken for."""

import hashlib
import os
import re
from pathlib import Path

LONGEST_NAME = 200  # bytes of a text in the name of a file, of which 255 are possible
LFS_POINTER = b"version https://git-lfs.github.com/spec"

# How a file begins → what it is, as the predicate of an error message.
_SIGNATURES = {
    LFS_POINTER: "is a Git LFS pointer and not the file itself: `git lfs pull` in its repository fetches that",
    b"\x1f\x8b": "is compressed with gzip: unpack it first (gunzip)",
    b"PK\x03\x04": "is a zip archive: unpack it first (unzip)",
    b"BZh": "is compressed with bzip2: unpack it first (bunzip2)",
    b"\xfd7zXZ": "is compressed with xz: unpack it first (unxz)",
    b"\xff\xfe": "is text in UTF-16: save it as UTF-8",
    b"\xfe\xff": "is text in UTF-16: save it as UTF-8",
    b"PAR1": "is a Parquet table",
    b"\x93NUMPY": "is a numpy array",
    b"<!DOCTYPE": "is a web page: what was downloaded is not the file",
    b"<html": "is a web page: what was downloaded is not the file",
}


def user_path(text: str | os.PathLike) -> Path:
    """A path as a shell would read it: ~ is the home folder, $NAME the variable; what is not known stays as it is."""
    return Path(os.path.expanduser(os.path.expandvars(os.fspath(text))))


def looked_in(path: Path) -> str:
    """Where a path that is not there was looked for, as the tail of an error message; "" where it says so itself."""
    return "" if path.is_absolute() else f" in {Path.cwd()}, where this command was started"


def as_name(text: str) -> str:
    """`text` as a name of one folder or file; of a long one the end, and a digest."""
    name = re.sub(r"\W+", "-", text)
    if len(name.encode()) <= LONGEST_NAME:
        return name
    return f"{name[-40:]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def foreign(start: bytes) -> str | None:
    """What a file with these first bytes is ("is a zip archive: …"); None for what is not known here."""
    if start[1:2] == b"\0" or start[:1] == b"\0" != start[1:2]:
        return _SIGNATURES[b"\xff\xfe"]
    return next((what for signature, what in _SIGNATURES.items() if start.startswith(signature)), None)


def git_lfs_command(path: Path) -> str:
    """The command that fetches the file of which `path` is a Git LFS pointer."""
    return f"git -C {path.absolute().parent} lfs pull --include={path.name}"
