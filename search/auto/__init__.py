"""``spnas auto``: from a folder of photos to trained detectors for a device."""
