"""The runtime of the user's own device: measuring a search space, and judging the table."""
