"""Maps at any point of any latent space, from the images near it.

Owns: which images count as near, their back-projection, bandwidth and shrinkage by half sets. Does
not own: latents (`frazil.engines.vae`, `frazil.engines.pca`), slices
(`frazil.engines.pca.kernels`).
"""
