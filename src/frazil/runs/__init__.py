"""The run folder: plain files that an engine writes and analysis reads.

Owns: names and formats (config.json, metrics.jsonl, checkpoints, weights, latents), and that every
file is whole. Does not own: what the numbers mean (`frazil.engines`, `frazil.analysis`).
"""
