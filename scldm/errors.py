"""The one exception a user's own input can raise, and the help that goes into its sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["UserError", "nearest_names", "require"]


class UserError(ValueError):
    """Something the user can cause and mend.

    The message is one clear sentence: what is wrong, where, and what is allowed. The command line prints it
    without a traceback and exits with status 2; from Python it is an ordinary ``ValueError``.
    """


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
