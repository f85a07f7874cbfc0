"""Who answers: language models in this process or behind a server, their answers kept, prompts filled.

It imports `subjects`, whose checkpoints it may run.
"""
