"""Judge recordings pair by pair.

judge finds the first array that differs; pairing says which arrays correspond, and uncalled describes a pair of which
none do. agreement decides it in float64, and verdicts in every dtype, by the rounding of each framework; masks judges
dropout; remarks writes what a reader should know beside a verdict.
"""
