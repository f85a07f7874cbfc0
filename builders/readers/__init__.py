"""What readers open first, made of the other configs of a release: a row for each latent, directions, vectors of explanations.

It makes the configs `browse`, `vectors`, `biases` and `embeddings`.
"""
