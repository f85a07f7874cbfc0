"""Dictionaries: their coders and file formats, training, fidelity, which latents fire where, and what each latent does.

It imports `lake`, `text` and `subjects`.
"""
