"""What goes wrong through the user's input, told in one line each."""

import difflib
import math
import operator
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


_BOUNDS = {"at_least": operator.ge, "above": operator.gt, "at_most": operator.le, "below": operator.lt}


def check_numbers(section: str, config: object, fields: Iterable[str], **bounds: float) -> None:
    """Raises ConfigError unless these fields of a section are finite and within `bounds`.

    >>> check_numbers("optim", config, ["beta1", "beta2"], at_least=0, below=1)
    ConfigError: optim.beta1=1.0 must be at least 0 and below 1
    """
    for field in fields:
        value = getattr(config, field)
        finite = -math.inf < value < math.inf  # also of whole numbers that no float holds
        if not (finite and all(_BOUNDS[name](value, bound) for name, bound in bounds.items())):
            words = [] if finite else ["finite"]
            words += [f"{name.replace('_', ' ')} {bound}" for name, bound in bounds.items()]
            raise ConfigError(f"{section}.{field}={value} must be {' and '.join(words)}")
