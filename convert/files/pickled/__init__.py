"""Read checkpoints that are pickles (torch, paddle) by an interpreter of our own, which calls nothing.

torch           reads torch's files
torch_writer    writes them
paddle          reads and writes paddle's
interpreter     runs the opcodes of a pickle
values          represents the objects that they build, and refuses dangerous names
torch_values    represents those of torch
numpy_values    represents those of numpy and jax
tree            flattens what comes out into named tensors
sources         says where the bytes of a tensor lie
emit            emits the opcodes that are written
"""
