"""One module a stage of dvc.yaml, each run as `python -m pipelines.stages.<stage> <id>`.

It imports every other room of pipelines.
"""
