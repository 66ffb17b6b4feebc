"""Say why no full Table comes out.

unmatched  lists what has no partner
depths     compares numbers of blocks
widths     compares the sizes of parameters
layers     compares strides of convolutions, and finds weight normalization of one side
"""
