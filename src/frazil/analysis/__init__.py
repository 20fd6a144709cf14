"""What is made of a trained run: volumes, embeddings, clusters, traversals, plots, the report.

Everything here reads runs and stores and writes files of its own; nothing is trained.
"""
