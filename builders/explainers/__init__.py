"""What a latent does, in words: one explainer a file, all giving rows of the `explanations` config."""
