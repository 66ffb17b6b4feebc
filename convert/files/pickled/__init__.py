"""Read checkpoints that are pickles (torch, paddle) by an interpreter of our own, which calls nothing.

interpreter runs the opcodes, and values stands for the objects that they build: torch_values and numpy_values for
those of each library. tree flattens what comes out into named tensors, and sources says where their bytes lie. On these
stand the readers torch and paddle. paddle writes its files as well, and torch_writer torch's; emit gives both the
opcodes.
"""
