"""Streaming particles from a store: order, large reads, batches."""
