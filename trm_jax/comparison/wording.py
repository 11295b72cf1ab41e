"""How numbers read in a sentence or a table."""

import math


def number(value: float | None) -> str:
    """Three significant digits, thousands separated, no exponent where it can be helped; – for nothing.

    >>> number(20000), number(0.87654), number(0.0001)
    ('20,000', '0.877', '0.0001')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 0.0995 or abs(value) >= 1 else f"{value:.3f}"


def with_spread(mean: float, spread: float) -> str:
    """`0.877 ± 0.012`; without a spread the mean alone."""
    return number(mean) if not math.isfinite(spread) else f"{number(mean)} ± {number(spread)}"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def listed(words: list[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
