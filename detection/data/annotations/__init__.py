"""Annotation files in COCO's format: read once, described in columns, and checked."""
