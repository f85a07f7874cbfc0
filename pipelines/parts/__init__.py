"""The larger parts of stages: training together, reading together, judging, hard windows, steered texts.

It imports `params`, `graph` and `opened`.
"""
