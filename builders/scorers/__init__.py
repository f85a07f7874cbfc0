"""Explanations × test windows → judgements and scores, with calibration on planted rules.

It imports the rooms up to `explainers`.
"""
