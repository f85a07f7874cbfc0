"""The language models that are studied: checkpoints pinned by hashes, hookpoints, recurrent states, sampling.

It imports `lake` and `text`.
"""
