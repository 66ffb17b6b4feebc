"""The architectures in paddle, one file each."""
