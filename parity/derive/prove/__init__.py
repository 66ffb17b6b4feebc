"""Prove a Table on other weights and inputs, list what may be permuted, and pair the uses of both models.

prove runs both models on weights that were not used to find the Table, and decides; what it cannot show is tried:

    the proof              prove, with translated weights (translated); gradients, parameter by parameter; observable
                           (parameters that no output depends on)
    what it exchanges not  unproven (integers, masks), stored (numbers of one side alone), integers (too large for JAX),
                           orders (permutations that went into the Table)
    other runs             trial runs both on other weights or inputs: signs, larger (values), absent (tokens that no
                           input has), zeros (an example of zeros), masks, examples (twice as many), longer (inputs),
                           constants (numbers of the other side), unreached (values beyond the limits of one side)
    what may be permuted   freedom; reach tells which exchanges may have no effect
    what corresponds       pairs runs both models on the same weights, and pairs the uses of the same elements
"""
