"""Models for others: a folder with weights, configuration and model card, and its upload."""
