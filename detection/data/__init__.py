"""Data sets: the embedded digits, COCO-type sets, and how they are checked and loaded."""
