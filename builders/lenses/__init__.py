"""Lenses: what a model's early layers already say about the next token."""
