"""Where trained models are kept: the model directory, its formats, and its card."""
