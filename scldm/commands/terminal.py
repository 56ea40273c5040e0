"""What is printed cannot steer a terminal: names come from files that anyone may have written."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from scldm.errors import printable

__all__ = ["harmless_output"]

# Progress bars go back to the start of their line, and up to the line of another bar.
_LAYOUT = re.compile(r"(\n|\t|\r|\x1b\[A)")


class _HarmlessStream:
    """A text stream on which only what lays lines out is left of control characters; all else shows as an escape."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, and give its length."""
        if text.isascii() and text.isprintable():
            return int(self._stream.write(text))
        parts = _LAYOUT.split(text)
        self._stream.write("".join(p if i % 2 else printable(p, longest=len(p)) for i, p in enumerate(parts)))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def harmless_output() -> Iterator[None]:
    """Print harmlessly to both streams of the terminal in the block."""
    out, err = (cast(TextIO, _HarmlessStream(stream)) for stream in (sys.stdout, sys.stderr))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield
