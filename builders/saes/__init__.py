"""Sparse dictionaries: their coders and file formats, training, fidelity, and what fires where.

It imports `lake`, `text` and `subjects`.
"""
