"""Probabilistic principal components of a particle set: mean, volumes and latents, by EM.

Owns: the model, its kernels, the schedule of a run. Does not own: streaming (`frazil.loader`),
files (`frazil.runs`), plots (`frazil.analysis`).
"""
