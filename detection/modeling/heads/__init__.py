"""Heads beyond Detectron2's own; each is chosen by a configuration key."""
