"""Explainers: from training windows to explanations, by token statistics, by language models, or from existing files.

It imports the rooms up to `engines`.
"""
