"""Say why no full Table comes out.

unmatched lists what has no partner, depths compares numbers of blocks, widths the sizes of parameters, strides those of
convolutions, and weight_norms finds weight normalization of one side.
"""
