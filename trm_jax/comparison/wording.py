"""How numbers read in a sentence or a table."""

import math


def number(value: float | None) -> str:
    """Three significant digits, thousands separated, no exponent; – for nothing.

    >>> number(20000), number(0.87654), number(0.0001)
    ('20,000', '0.877', '0.0001')
    """
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:,.{_decimals(value)}f}"
    return text.rstrip("0").rstrip(".") if "." in text and abs(value) < 0.1 else text


def with_spread(mean: float, spread: float) -> str:
    """`0.877 ± 0.012`, both with the decimals of the mean; without a spread the mean alone."""
    if not math.isfinite(spread):
        return number(mean)
    decimals = _decimals(max(abs(mean), spread))
    apart = f"{spread:,.{decimals}f}"
    return f"{number(mean)} ± 0" if float(apart.replace(",", "")) == 0 else f"{mean:,.{decimals}f} ± {apart}"


def _decimals(value: float) -> int:
    """Decimals that leave three significant digits."""
    if value == 0:
        return 0
    return max(0, 2 - math.floor(math.log10(abs(value))))


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def listed(words: list[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
