"""What latents cause: a model is pushed along a latent's or a random direction, and what it then predicts and writes is recorded.

It imports the rooms up to `contexts`.
"""
