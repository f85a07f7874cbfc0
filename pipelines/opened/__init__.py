"""Params → opened things: subjects, dictionaries, corpora, behaviours, engines, embedders, scorers.

It imports `params` and `graph`.
"""
