"""What DVC cannot see: which code, params and files a stage depends on, and where its outputs lie.

It imports `params`.
"""
