"""The small lab checkpoints that the default run studies, and the recipe that trained them."""
