"""Figures of Paulo et al. (ICML 2025) that a release is set beside."""

from __future__ import annotations

# Table 1: tokens per latent at 100 examples, and $ per 100,000 latents.
COSTS = (
    {"name": "fuzzing", "prompt": 19_600, "cached": 14_200, "output": 249, "llama": 676, "claude": 6_200},
    {"name": "detection", "prompt": 17_000, "cached": 11_900, "output": 240, "llama": 588, "claude": 5_500},
    {"name": "simulation, all at once", "prompt": 104_900, "cached": 87_500, "output": 5, "llama": 3_600, "claude": 31_500},
    {"name": "simulation, token by token", "prompt": 496_900, "cached": 451_000, "output": 46_700, "llama": 18_700, "claude": 219_100},
    {"name": "embedding", "prompt": 4_000, "cached": 0, "output": 0, "llama": 50, "claude": None},
)
