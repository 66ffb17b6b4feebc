"""Change one side's tape so that it may become equal to the other side's: each change is a possible cause.

edit defines a change. A look at both tapes finds it; only running them with it tells whether it is right
(explain/recomputation). These yield changes of

    numbers     numbers (epsilons, scales), roots (epsilons under a root, or added to it), scores (factors of attention)
    functions   activations, functions (of one value, that one side alone computes), axes (of softmax, groups of
                norms), swaps (one operation for another), stretches (several for several),
                windows (of convolutions), chosen (how many of several values, or their sum)
    places      norms, reduced_norms (behind a mean), activated_sums (activations before or behind a sum or a norm),
                gates (left out, before or behind a product), outputs (in another order, or values on the way)
    terms       sums (terms that are left out), positions (the same for some of what reads a sum), affine (parameters
                that are added or multiplied), layers (that are left out), shortcuts (the same on a
                shortcut)
    parameters  weights (functions of them, or one at two places), tables (masks, rotations, positions, rows),
                picked_rows (other rows of a parameter)

rewiring joins those that change how a side is composed: norms, sums, positions, gates and affine. texts says how calls
and tables differ (buckets: those of relative positions), resampling names windows and kernels, and selections says what
stretches take of values.
"""
