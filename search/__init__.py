"""How a backbone is found: superkernels, runtime, targets, training and export."""
