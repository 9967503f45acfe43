"""Search methods compared at matched runtime (Sec. VII-A, Fig. 8)."""
