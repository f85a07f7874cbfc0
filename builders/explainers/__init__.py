"""Training windows → explanations: token statistics, language models, files of others.

It imports the rooms up to `engines`.
"""
