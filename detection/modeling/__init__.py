"""Backbones, feature pyramids and heads, registered with Detectron2."""
