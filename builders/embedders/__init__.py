"""Who turns text into vectors: sentence models, letter counts, vectors kept on disk.

It imports `lake` and `subjects`.
"""
