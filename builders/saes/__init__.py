"""Sparse dictionaries of a model's activations: one SparseCoder, one reader per file format, a trainer."""
