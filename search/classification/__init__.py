"""Training on classification images: data, optimizer, trainer, classifier, accuracy."""
