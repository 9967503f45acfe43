"""Everything that a GPU has to be asked, in one go of some minutes."""
