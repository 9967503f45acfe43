"""One search from configuration to exported network, on a classifier's or a detector's losses."""
