"""Say why no full Table comes out.

unmatched  lists what has no partner
built      compares numbers of blocks and strides of convolutions, and finds weight normalization of one side
widths     compares the sizes of parameters
"""
