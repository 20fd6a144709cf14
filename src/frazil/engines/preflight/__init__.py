"""The check before training: do images, poses and CTF fit each other?

Owns: the sample, the hypotheses and their scores, the findings. Does not own: the figure and the
file in the store (`frazil.analysis.preflight`).
"""
