"""Change one side's tape so that it may become equal to the other side's: each change is a possible cause.

edit defines a change. These yield such changes: numbers (epsilons, scales), roots (epsilons under a root or added to
it), activations (activated_sums: before or after a sum or a norm), axes (of softmax, groups of norms), norms
(reduced_norms: before or behind a mean), sums, gates (before or behind a product), affine (parameters that are added or
multiplied), functions (without parameters, that one side alone computes), weights (functions of parameters, or one
parameter at two places), tables (masks, rotations, positions, rows), swaps (one operation for another), pools (of
poolings), stretches (several for several; selections says what they take of values, resizes by which kernel they
resize), earlier (what is computed before a value), outputs (in another order) and scores (factors of attention).
rewiring joins those that change how a side is composed. texts says how calls and tables differ.

A change is found by one look at both tapes; only running them with it tells whether it is right (prove/recomputation).
"""
