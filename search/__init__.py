"""Searching a backbone: spaces, supernets, selection at a target runtime, training and export."""
