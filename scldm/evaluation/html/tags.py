"""HTML from nested calls; every text is escaped unless it is HTML already."""

from __future__ import annotations

import html
import math

__all__ = ["NOTHING", "Html", "element", "join", "number", "words"]

NOTHING = "–"  # noqa: RUF001 (a dash, not a hyphen)

_VOID = {"img", "br", "meta", "col"}
_WORDS = {
    "wasserstein2": "Wasserstein-2",
    "mmd2": "MMD²",
    "frechet": "Fréchet",
    "auroc": "AUROC",
    "pca": "PCA",
    "nb": "NB",
    "hvg": "HVG",
    "w2": "W2",
    "1nn": "1-NN",
    "ks": "KS",
    "umi": "UMI",
    "mae": "MAE",
    "kolmogorov": "Kolmogorov",
    "smirnov": "Smirnov",
}


class Html(str):
    """Text that is HTML: not to be escaped again."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | None) -> Html:
    """Write one element.

    Parameters
    ----------
    name
        Tag, such as ``"td"``.
    children
        Texts, which are escaped, and elements.
    attributes
        Those that are None are left out; a trailing underscore is dropped (``class_``), others become hyphens.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: str) -> Html:
    """Put texts, which are escaped, and elements after each other."""
    return Html("".join(child if isinstance(child, Html) else html.escape(child) for child in children))


def number(value: float | None, like: float | None = None) -> str:
    """Write a number with three significant digits, or with as many decimals as another one.

    Parameters
    ----------
    value
        None, or one that is not finite, is a dash.
    like
        The number whose decimals to use, such as the value of an interval's ends.
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    scale = abs(value if like is None or not math.isfinite(like) else like)
    if scale == 0:
        return "0" if value == 0 else number(value)
    decimals = min(max(2 - math.floor(math.log10(scale) + 1e-9), 0), 5)
    text = f"{value:,.{decimals}f}"
    return text.replace("-", "−")  # noqa: RUF001 (a minus sign, not a hyphen)


def words(name: str) -> str:
    """Turn the name of a figure into words: ``frechet_distance`` is "Fréchet distance"."""
    text = " ".join(_WORDS.get(word, word) for word in name.split("_")).replace("gene gene", "gene-gene")
    return text[:1].upper() + text[1:]
