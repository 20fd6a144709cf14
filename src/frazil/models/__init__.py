"""Neural networks: positional features, residual MLP, encoder, decoder, the VAE, its losses.

Owns: what is computed from tensors, and how weights begin. Does not own: data, optimisers and
files (`frazil.engines`, `frazil.runs`).
"""
