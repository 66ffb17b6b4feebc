"""The files that `python -m ports new NAME` writes, NAME in place of my_network: a small network that runs as it is."""
