"""The neural engine: cryoDRGN's published variational autoencoder.

Owns: its settings, one training step, the loop, restart, and loading what it wrote. Does not own:
the networks (`frazil.models`) and the files' formats (`frazil.runs`).
"""
