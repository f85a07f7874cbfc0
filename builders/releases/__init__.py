"""A release as a thing of its own: opened, checked, compared and exported.

It knows only what the release says of itself, so it serves releases that other code made.
"""
