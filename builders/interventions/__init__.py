"""What latents cause: a model pushed along a direction, and what it then says.

It imports the rooms up to `contexts`.
"""
