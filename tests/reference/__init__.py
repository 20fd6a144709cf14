"""Slow, readable numpy float64 twins of the fast code, written from the conventions alone.

Nothing here imports frazil: a twin that shares code with what it checks proves nothing.
"""
