"""Engines: language models that answer requests, in this process or behind a server; the cache of their answers; prompt templates.

It imports `subjects`, whose checkpoints it may run.
"""
