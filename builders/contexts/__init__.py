"""The windows of text that explainers and scorers see, latents chosen and silent ones drawn.

It imports `lake`, `text` and `saes`.
"""
