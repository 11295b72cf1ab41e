"""What goes wrong through the user's input, told in one line each."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the field and what it may hold."""


def nearest(value: object, choices: Iterable[str]) -> str:
    """`value` among `choices`, as the tail of an error message: the nearest first, then all.

    >>> nearest("onlin", ["online", "original"])
    "did you mean 'online'? choose from: online, original"
    """
    names = list(choices)
    close = difflib.get_close_matches(str(value), names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}choose from: {', '.join(names)}"


def check_choice(field: str, value: object, choices: Iterable[str]) -> None:
    """Raises ConfigError unless `value` is one of `choices`."""
    names = list(choices)
    if value not in names:
        raise ConfigError(f"{field}={value!r} is unknown; {nearest(value, names)}")
