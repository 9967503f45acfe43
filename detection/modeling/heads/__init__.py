"""Heads beyond Detectron2's own; each is chosen by a configuration key.

Every module in this folder is imported with ``detection``, and registers its heads or whole
detectors in Detectron2's registries.
"""
