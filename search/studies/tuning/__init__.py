"""λ found automatically for a target runtime, as hyperparameter optimisation (Sec. VII-B)."""
