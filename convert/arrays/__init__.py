"""Fill, cast and compute the arrays of a target.

steps       defines what a plan fills each target array with
payload     computes the bytes of these arrays
casting     casts them to another dtype
dtypes      lists the dtypes, and what a cast loses
counters    reads and writes the counts of batches, which torch alone stores
"""
