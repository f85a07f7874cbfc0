"""A release in the layouts of other tools, and back: Neuronpedia's bulk files, those of the original release, circuit-tracer's features.

Everything is read from a finished release, so no params, no checkpoint and no PyTorch are needed.
"""
