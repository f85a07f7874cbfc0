"""Measured, never asserted in tests: ratios within one run."""
