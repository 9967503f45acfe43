"""Latency tables of the user's own device: measures a search space and evaluates the table."""
