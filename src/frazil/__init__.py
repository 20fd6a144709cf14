"""frazil: cryo-EM heterogeneous reconstruction for particle sets larger than memory."""

__version__ = "0.1.0"
