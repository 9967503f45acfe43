"""A benchmark with a known answer: every network of a small space trained, searches judged."""
