"""How far something is: a bar on a terminal, a plain line now and then where there is none (a pipe, nohup, a file)."""

import contextlib
import sys
import time
from types import TracebackType

from tqdm import tqdm

EVERY_S = 30.0  # between two plain lines


class Bar:
    """Counts up to `total`, on stderr.

    Args:
        what: is going on.
        unit: that is counted.
        initial: already done before.
        show: False says nothing at all, e.g. in all processes but the first.
        keep: leave the full bar standing; False also says nothing of what is done within EVERY_S.
    """

    def __init__(self, total: int, what: str, unit: str, *, initial: int = 0, show: bool = True, keep: bool = True):
        self._what, self._unit, self._total, self._done = what, unit, total, initial
        self._since, self._begun, self._facts = time.monotonic(), initial, ""
        self._told, self._keep = self._since, keep
        terminal = sys.stderr.isatty()
        self._plain = show and not terminal
        self._bar = tqdm(total=total, initial=initial, desc=what, unit=unit, leave=keep, mininterval=1.0,
                         unit_scale=total >= 1_000_000, disable=not (show and terminal))

    def update(self, count: int = 1) -> None:
        """So many more are done."""
        self._done += count
        self._bar.update(count)
        if self._plain and time.monotonic() - self._told >= EVERY_S:
            self._tell()

    def facts(self, **values: str) -> None:
        """What stands behind the bar from now on."""
        self._facts = ", ".join(f"{name}={value}" for name, value in values.items())
        self._bar.set_postfix_str(self._facts)

    def line(self, text: str) -> None:
        """Prints a line on stdout, which the bar does not cut in two."""
        tqdm.write(text)

    def close(self) -> None:
        """The end, reached or not."""
        self._bar.close()
        if self._plain and self._done > self._begun and (self._keep or self._told > self._since):
            self._tell()
        self._plain = False

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _tell(self) -> None:
        self._told = time.monotonic()
        rate = (self._done - self._begun) / max(self._told - self._since, 1e-9)
        left = (self._total - self._done) / rate if rate else 0.0
        facts = f", {self._facts}" if self._facts else ""
        with contextlib.suppress(OSError):  # a log on a full disk stops nothing
            sys.stderr.write(f"{self._what}: {self._done}/{self._total} {self._unit}s, {rate:.3g}/s, "
                             f"{tqdm.format_interval(left)} left{facts}\n")
            sys.stderr.flush()
