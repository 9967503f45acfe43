"""Starting a search from a trained network: the space around it, and its weights in a supernet."""
