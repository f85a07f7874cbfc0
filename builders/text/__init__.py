"""Text and tokens: documents from their sources, rows of token ids, the vocabulary, and the grid of windows over rows.

It imports `lake`.
"""
