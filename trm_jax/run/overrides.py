"""Fields that are set on a command line, each as --config.SECTION.FIELD=VALUE."""

import re
from collections.abc import Iterable

from trm_jax.run import fields
from trm_jax.run.settings import Config, kind_of

OVERRIDE = re.compile(r"--?(?:no)?config\.(?P<name>[^=]*)(?:=(?P<text>.*))?", re.DOTALL)


def check_overrides(words: Iterable[str]) -> None:
    """Raises ConfigError where one of these words of a command line sets an unknown field, or to a wrong value."""
    for word in words:
        if match := OVERRIDE.fullmatch(word):
            kind = kind_of(match["name"])
            if match["text"] is not None:
                fields.parse(match["name"], match["text"], kind)


def with_changes(config: Config, changes: Iterable[str]) -> Config:
    """`config` with other values, each given as "SECTION.FIELD=VALUE".

    Raises:
        ConfigError: there is no such field, or it cannot hold that value.
    """
    config = {section: dict(values) for section, values in config.items()}
    for change in changes:
        name, _, text = change.partition("=")
        section, field = name.split(".") if name.count(".") == 1 else (name, "")
        value = fields.parse(name, text, kind_of(name))
        config.setdefault(section, {})[field] = value
    return config
