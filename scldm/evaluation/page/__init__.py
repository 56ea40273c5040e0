"""The evaluation as one self-contained web page."""
