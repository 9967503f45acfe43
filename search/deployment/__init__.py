"""Networks of runs, made ready to leave the house: found, described, and tried on images."""

from __future__ import annotations
