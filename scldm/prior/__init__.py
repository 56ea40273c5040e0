"""The prior over latents and depth: a flow-matching Diffusion Transformer with guidance and solvers."""
