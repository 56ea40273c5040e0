"""The one exception a user's own input can raise, and the help that goes into its sentence."""

from __future__ import annotations

import difflib
import numbers
import unicodedata
from collections.abc import Iterable
from typing import Any, TypeAlias

__all__ = ["UserError", "WholeNumber", "is_number", "is_whole_number", "nearest_names", "printable", "require"]


WholeNumber: TypeAlias = Any
"""An int, or a whole number of numpy; whatever else is given is refused in a sentence."""


class UserError(ValueError):
    """Something the user can cause and mend.

    The message is one clear sentence: what is wrong, where, and what is allowed. The command line prints it
    without a traceback and exits with status 2; from Python it is an ordinary ``ValueError``.

    Names in it come from files that anyone may have written: what would steer a terminal is shown as an escape, and a
    message that is far too long is cut in the middle.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message).replace("\n", " ")))


#: Characters of a message; what is longer holds something that nobody wants to read.
LONGEST_MESSAGE = 1500


def printable(text: str, longest: int = LONGEST_MESSAGE) -> str:
    r"""Return text without what would steer a terminal, shortened in the middle.

    Control characters, escape sequences, reversed writing directions and lone surrogates become escapes like ``\x1b``.
    """
    if len(text) > longest:
        text = f"{text[: longest * 2 // 3]} [...] {text[-longest // 3 :]}"
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if unicodedata.category(c) not in _UNPRINTABLE else _escaped(c) for c in text)


# Control, format (such as a reversed writing direction), surrogate; line and paragraph separators.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", errors="surrogatepass").decode("ascii")


def is_number(value: Any) -> bool:
    """Whether this is one real number, of Python or numpy, and not a truth value."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_whole_number(value: Any) -> bool:
    """Whether this is one whole number, of Python or numpy, and not a truth value."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def require(condition: bool, message: str) -> None:
    """Raise :class:`UserError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise UserError(message)


def nearest_names(name: object, allowed: Iterable[object], n: int = 3) -> str:
    """Tell which allowed names are nearest to a wrong one.

    Parameters
    ----------
    name
        What the user wrote.
    allowed
        Every valid name.
    n
        How many suggestions at most.

    Returns
    -------
    A clause to put behind a semicolon: ``did you mean 'B cell'?``, or the list of what is allowed when nothing is near.
    """
    names = [str(a) for a in allowed]
    folded = {candidate.casefold(): candidate for candidate in names}
    close = [folded[m] for m in difflib.get_close_matches(str(name).casefold(), list(folded), n=n, cutoff=0.5)]
    if close:
        return "did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    shown = ", ".join(f"'{c}'" for c in names[:8])
    return f"allowed: {shown}" + (f" and {len(names) - 8} more" if len(names) > 8 else "")
