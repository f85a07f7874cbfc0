"""Contrastive steering: behaviours, steering vectors, steered models, and what these answer and write.

It imports `lake`, `subjects` and `engines`.
"""
