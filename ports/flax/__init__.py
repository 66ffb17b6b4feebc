"""The architectures in flax, one file each."""
