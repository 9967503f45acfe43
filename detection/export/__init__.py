"""Whole detectors as files: static networks, and the rest in NumPy."""
