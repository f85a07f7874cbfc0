"""How well an explanation predicts its latent: one scorer a file, all giving `judgements` and `scores`."""

from builders.scorers import detection, fuzzing

SCORERS = {"detection": detection.trials, "fuzzing": fuzzing.trials}
