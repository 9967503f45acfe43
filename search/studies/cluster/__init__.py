"""Independent runs of a study as jobs of a cluster."""
