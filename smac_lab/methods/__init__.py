"""Methods that are not SMAC, from its parts: online PEARL."""
