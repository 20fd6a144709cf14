"""From images on disk to packed coefficients: pure steps, streaming statistics, one pass."""
