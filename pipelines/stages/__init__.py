"""One module for each stage of dvc.yaml, run as `python -m pipelines.stages.<stage> <id>`.

It imports every other room of pipelines.
"""
