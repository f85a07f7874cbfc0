"""The pipeline: one module for each DVC stage (read params, call builders, write tables), and the `interplake` commands."""

from pipelines import kernels

kernels.pin()  # before any module of a stage loads numpy or torch
