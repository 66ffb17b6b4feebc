"""Judge recordings pair by pair.

judge      finds the first array that differs
pairing    pairs the arrays of two recordings
uncalled   describes two recordings of which no arrays correspond
agreement  compares arrays of float64 runs
verdicts   compares arrays of any dtype, by the rounding of each framework
masks      judges dropout
remarks    writes what a reader should know beside a verdict
"""
