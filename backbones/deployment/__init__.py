"""What becomes a file for a device: its contract, its formats, int8 and fp16, and its runtimes."""

from __future__ import annotations
