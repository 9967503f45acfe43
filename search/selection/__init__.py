"""Which network of a space: its runtime, the target, and how networks are chosen or drawn."""
