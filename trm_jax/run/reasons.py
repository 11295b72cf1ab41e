"""What errors of file systems and libraries say, in a few words."""

import re
import textwrap

_KNOWN = re.compile("No space left on device|Disk quota exceeded|File too large|Permission denied|"
                    "Read-only file system|Input/output error|Stale file handle")


def reason(error: BaseException) -> str:
    """The words of the operating system where it is to blame, else the beginning of the message."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error) or type(error).__name__
    known = _KNOWN.search(text)
    return known.group() if known else textwrap.shorten(text, 200, placeholder="…")
