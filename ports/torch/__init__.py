"""The architectures in torch, one file each."""
