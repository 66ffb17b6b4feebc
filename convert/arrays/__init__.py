"""Fill, cast and compute the arrays of a target.

steps lists what a plan fills each target array with; payload computes these bytes, and casting casts them; dtypes
lists the dtypes and what a cast loses. counters handles the counts of batches that only torch stores.
"""
