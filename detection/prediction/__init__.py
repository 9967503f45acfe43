"""What a trained network finds on photos, whatever kind of file it is in."""
