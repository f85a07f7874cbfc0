"""Embedders: what turns text into vectors (sentence models, letter counts), and the vectors kept on disk.

It imports `lake` and `subjects`.
"""
