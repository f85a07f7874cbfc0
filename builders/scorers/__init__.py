"""How well an explanation predicts its latent: one scorer a file, all giving `judgements` and `scores`."""
