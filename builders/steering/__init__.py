"""Contrastive steering: behaviours, vectors, steered models, what they answer and write.

It imports `lake`, `subjects` and `engines`.
"""
