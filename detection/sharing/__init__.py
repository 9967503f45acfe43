"""Sharing what a run has left: its facts, and a detector with its configuration."""
