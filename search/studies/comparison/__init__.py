"""Backbones compared under one detector (Tables I and III)."""
