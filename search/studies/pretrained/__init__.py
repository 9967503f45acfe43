"""Networks cut out of an adapted supernet at one runtime, and fine-tuned alike."""
