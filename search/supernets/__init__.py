"""Every network of a search space in one set of weights, and the decisions among them."""
