"""Figures from papers, which the card shows beside those of a release."""

from __future__ import annotations

from typing import Any

# Paulo et al. 2024 (arXiv 2410.13928, version of ICML 2025), table 1: tokens per latent at 100 examples, and $ per 100,000 latents.
COSTS = (
    {"name": "fuzzing", "prompt": 19_600, "cached": 14_200, "output": 249, "llama": 676, "claude": 6_200},
    {"name": "detection", "prompt": 17_000, "cached": 11_900, "output": 240, "llama": 588, "claude": 5_500},
    {"name": "simulation, all at once", "prompt": 104_900, "cached": 87_500, "output": 5, "llama": 3_600, "claude": 31_500},
    {"name": "simulation, token by token", "prompt": 496_900, "cached": 451_000, "output": 46_700, "llama": 18_700, "claude": 219_100},
    {"name": "embedding", "prompt": 4_000, "cached": 0, "output": 0, "llama": 50, "claude": None},
)

# Paulo, Marshall & Belrose 2024 (arXiv 2404.05971), read off two figures: percentage points at the best layer, when vectors are
# added to the residual stream, to the state, and to both. See docs/science.md#steering.
MAMBA_HALF_RANGES = {
    "coordinate-other-ais": (8.5, 2.2, 8.3),
    "corrigible-neutral-HHH": (13.1, 2.9, 14.0),
    "hallucination": (18.5, 5.1, 22.4),
    "myopic-reward": (4.1, 2.8, 5.2),
    "refusal": (4.4, 2.2, 4.9),
    "survival-instinct": (28.6, 8.5, 26.4),
    "sycophancy": (2.4, 2.4, 3.1),
}
RWKV_FULL_RANGES = {  # RWKV's figure shows the sum of both directions, Mamba's shows their mean
    "coordinate-other-ais": (12.8, 8.7, 22.9),
    "corrigible-neutral-HHH": (26.9, 22.1, 34.1),
    "hallucination": (44.1, 31.7, 47.7),
    "myopic-reward": (12.4, 6.2, 13.0),
    "refusal": (36.3, 15.6, 36.3),
    "survival-instinct": (17.3, 7.3, 24.4),
    "sycophancy": (1.6, 0.9, 2.2),
}
# Half-ranges as shares (0 to 1), the unit of a release's own.
STEERED: tuple[dict[str, Any], ...] = tuple(
    {"model": model, "behaviour": behaviour, "residual": residual / whole, "state": state / whole, "both": both / whole}
    for model, figures, whole in (("Mamba 2.8b", MAMBA_HALF_RANGES, 100), ("RWKV-v5 7b", RWKV_FULL_RANGES, 200))
    for behaviour, (residual, state, both) in figures.items()
)

# How alike SAEs are that others trained. Where decoder and encoder rows assign the same partner, no threshold applies.
_AGREE = "decoder and encoder assign the same partner (files of EleutherAI/sae_overlap, for arXiv 2501.16615)"
SIMILARITY: tuple[dict[str, str], ...] = tuple(
    {"where": where, "what": what, "value": value}
    for where, what, value in (
        ("Pythia-160m, MLP, 32k latents, k = 32, 35 pairs of seeds", _AGREE, "0.79–0.81"),
        ("the same, 131k latents", _AGREE, "0.70"),
        ("the same, 32k latents, k = 64, 128, 256", _AGREE, "0.71, 0.62, 0.62"),
        ("the same, trained for shorter, for longer", _AGREE, "0.46, 0.88"),
        ("the same, ReLU, gated", _AGREE, "0.90, 0.93"),
        ("Llama, 147k latents", _AGREE, "0.62"),
        ("Llama-3-8B, 131k latents, two seeds", "shared latents (arXiv 2501.16615)", "about 0.30"),
        ("Pythia-160m, two seeds", "shared latents (arXiv 2501.16615)", "about 0.53"),
        ("TopK SAEs, pairs of runs", "PW-MCC: mean decoder cosine of one-to-one partners (arXiv 2505.20254)", "about 0.80"),
    )
)
