"""The fields of a config section: their names, their types, and how their values are written on a command line."""

import ast
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trm_jax.errors import ConfigError, nearest

_BOOLS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}

# Type of a field → how its text is read, and what such a value is called.
_KINDS: dict[Any, tuple[Callable[[str], Any], str]] = {
    str: (str, "a text"),
    int: (int, "a whole number"),
    float: (float, "a number"),
    bool: (lambda text: _BOOLS[text.lower()], "true or false"),
    tuple[int, ...]: (lambda text: list(ast.literal_eval(f"({text.strip('()[], ')},)")),
                      "whole numbers, separated by commas"),
}


def kinds(section: Any) -> dict[str, Any]:
    """Name → type of every field of a section, a dataclass."""
    return {field.name: field.type for field in dataclasses.fields(section)}


def parse(name: str, text: str, kind: Any) -> Any:
    """The plain value of type `kind` that `text` stands for. Raises ConfigError, naming the field, if for none."""
    read, called = _KINDS[kind]
    try:
        value = read(text)
    except (ValueError, SyntaxError, TypeError, KeyError):
        value = None
    if not _is(value, kind):
        raise ConfigError(f"--config.{name}={text}: not {called}")
    return value


def check_kind(name: str, value: Any, kind: Any) -> None:
    """Raises ConfigError unless `value` is of type `kind`. A whole number is a number too, a truth value is none."""
    if not _is(value, kind):
        raise ConfigError(f"{name}={value!r} must be {_KINDS[kind][1]}")


def _is(value: Any, kind: Any) -> bool:
    if kind == tuple[int, ...]:
        return isinstance(value, list | tuple) and all(type(item) is int for item in value)
    return type(value) is kind or (kind is float and type(value) is int)


def check_known(what: str, name: str, known: Iterable[str]) -> None:
    """Raises ConfigError, with the nearest name, unless `name` is known."""
    if name not in known:
        raise ConfigError(f"unknown {what} {name!r}; {nearest(name, known)}")


def check_names(what: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raises ConfigError unless the names given are exactly those known."""
    for name in given:
        check_known(what, name, known)
    missing = [name for name in known if name not in given]
    if missing:
        raise ConfigError(f"missing {what}: {', '.join(missing)}")
