"""How numbers read in a sentence or a table."""

import math
import statistics
from collections.abc import Collection, Sequence


def number(value: float | None) -> str:
    """Three significant digits, thousands separated; – for what is not there or not finite.

    >>> number(20000), number(80), number(0.87654), number(0.0001), number(3.2e-7)
    ('20,000', '80', '0.877', '0.0001', '3.2e-07')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if 0 < abs(value) < 1e-4:
        return f"{value:.1e}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value)))) if value % 1 else 0
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text and abs(value) < 0.1 else text


def with_spread(values: Collection[float]) -> str:
    """`0.877 ± 0.012`, mean and standard deviation of one value per seed; of one seed its value alone."""
    mean = statistics.fmean(values)
    several = len(values) > 1 and math.isfinite(mean)
    return number(mean) + (f" ± {float(f'{statistics.stdev(values):.2g}'):,.10g}" if several else "")


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([*filter(None, [", ".join(words[:-1])]), *words[-1:]])
