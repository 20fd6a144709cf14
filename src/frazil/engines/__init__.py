"""Engines: what learns from particle batches and writes a run.

Owns: training and reconstruction. Does not own: where batches come from (`frazil.loader`), and
what is made of a run (`frazil.analysis`).
"""
