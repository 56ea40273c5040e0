"""The evaluation as one self-contained web page."""

from scldm.evaluation.html.page import write_html

__all__ = ["write_html"]
