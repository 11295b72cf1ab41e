"""How numbers read in a sentence or a table."""

import math

SMALLEST_PLAIN = 1e-4  # numbers below it are written with an exponent


def number(value: float) -> str:
    """Three significant digits, thousands separated; – for what is not finite.

    >>> number(20000), number(0.87654), number(0.0001), number(3.2e-7)
    ('20,000', '0.877', '0.0001', '3.2e-07')
    """
    if not math.isfinite(value):
        return "–"
    if 0 < abs(value) < SMALLEST_PLAIN:
        return f"{value:.1e}"
    text = f"{value:,.{_decimals(value)}f}"
    return text.rstrip("0").rstrip(".") if "." in text and abs(value) < 0.1 else text


def with_spread(mean: float, spread: float) -> str:
    """`0.877 ± 0.012`, both with the decimals of the larger; without a spread the mean alone."""
    if not math.isfinite(spread):
        return number(mean)
    largest = max(abs(mean), spread)
    if largest < SMALLEST_PLAIN:
        return f"{number(mean)} ± {number(spread)}"
    decimals = _decimals(largest)
    apart = f"{spread:,.{decimals}f}"
    return f"{number(mean)} ± 0" if not apart.strip("0.") else f"{mean:,.{decimals}f} ± {apart}"


def _decimals(value: float) -> int:
    """Decimals that leave three significant digits."""
    return max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def listed(words: list[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
