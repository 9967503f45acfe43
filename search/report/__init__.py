"""The report: what runs left in their folders, as one self-contained HTML page."""
