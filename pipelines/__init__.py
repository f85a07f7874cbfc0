"""How the datasets are made: one module per DVC stage (parse, call the builder, write), and the commands for people."""

from pipelines import kernels

kernels.pin()  # before any module of a stage loads numpy or torch
