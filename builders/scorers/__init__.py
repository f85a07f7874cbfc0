"""From explanations and test windows to judgements and scores; and the calibration of scorers on planted rules.

It imports the rooms up to `explainers`.
"""
