"""The formulations of the search (Sec. VII-A), each an object: one key, ``SEARCH.FORMULATION``."""
