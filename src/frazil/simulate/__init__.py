"""Simulated particle sets with known truth: molecules, their motions, exact projections, files.

Owns: `settings`, `structures` (atoms), `motions` (conformations), `images` (physics of one image),
`noise` (noise and outliers), `sampling` (what is drawn for each particle), `export` (metadata
files), `dataset` (the whole folder). Does not own: file formats (`frazil.io`), the CTF and
rotations (`frazil.geometry`).
"""
