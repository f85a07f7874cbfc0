"""Benchmarks: ratios measured within one run; no test asserts them."""
