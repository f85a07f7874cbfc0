"""How alike two dictionaries are: measures of pairs of latents, partners, and what is shared.

It imports the rooms up to `scorers`.
"""
