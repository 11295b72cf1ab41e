"""Presets and tools: folders that stand beside the package in a checkout, and in it where it was installed."""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

from trm_jax.errors import ConfigError, nearest

PRESETS, TOOLS = "configs", "tools"
_PACKAGE = Path(__file__).parent


def folder(name: str) -> Path:
    """The folder called `name`, PRESETS or TOOLS."""
    return next(path for path in (_PACKAGE / name, _PACKAGE.parent / name) if path.is_dir())


def provide(name: str) -> None:
    """Makes `import name` find that folder, wherever the command was started; a folder of one's own may add to it."""
    if name in sys.modules:
        return
    places = [str(folder(name)), str(Path(name).absolute())]
    spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = list(dict.fromkeys(places))
    sys.modules[name] = importlib.util.module_from_spec(spec)


def presets() -> list[str]:
    """Names of all presets."""
    return sorted(path.stem for path in folder(PRESETS).glob("*.py") if path.stem not in ("__init__", "base"))


def preset_file(text: str) -> str:
    """What --config names, as a file: `configs/o1.py:tiny`, `o1:tiny`, or a file of one's own.

    Raises:
        ConfigError: there is no such file and no such preset.
    """
    provide(PRESETS)
    name, colon, size = text.partition(":")
    if Path(name).is_file():
        return text
    if Path(name).stem in presets() and Path(name).parent in (Path(), Path(PRESETS)):
        return f"{folder(PRESETS) / Path(name).stem}.py{colon}{size}"
    raise ConfigError(f"--config={text}: no such file, and no such preset; {nearest(Path(name).stem, presets())}")
