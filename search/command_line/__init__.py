"""``spnas``: every tool as a command, from any folder; importing this costs nothing."""
