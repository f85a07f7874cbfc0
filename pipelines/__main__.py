"""`python -m pipelines` is `interplake`."""

from pipelines.cli import main

main()
