"""The evaluation as one self-contained web page."""

from scldm.evaluation.html.page import write_html
from scldm.evaluation.html.standing import standing

__all__ = ["standing", "write_html"]
