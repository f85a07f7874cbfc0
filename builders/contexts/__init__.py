"""Contexts: the windows of text that explainers and scorers see, where a latent fires and where it is silent.

It imports `lake`, `text` and `saes`.
"""
