"""Prove a Table on other weights and inputs, list what may be permuted, and pair the uses of both models.

    prove        runs both models on weights that were not used to find the Table, and decides

What it runs both models with:

    translated   translates the left side's weights by the Table
    gradients    compares the gradients of both sides, parameter by parameter
    idle_elements finds elements that change no output, as columns that zeros reach

What it cannot show, trial tries with other runs of both models, or looks up in what the models store:

    trial        runs both on other weights or inputs, and tells parameters that no output depends on
    other_inputs other signs of what the proof draws positive, and an example of zeros
    larger       larger weights and inputs
    unreached    values beyond the limits of one side
    absent       tokens that no input has
    numbers      scores for which other fills of masks show, and one side with a number of the other
    masks        other values of masks, and of integers that are all the same
    longer       longer and shorter inputs, twice as many examples, and one
    as_given     the dtypes of the given weights, as float32
    other_values other integers, flags and complex numbers than both sides store
    stored       integers and flags that one side alone stores
    in_code      tells whether the other side has these in its code
    table_rows   tells whether they pick rows of parameters alone
    unproven     arrays that the proof does not exchange (integers, booleans, masks), permutations that went into the
                 Table, integers that are too large for JAX

What other rooms ask for:

    freedom      lists what may be permuted without effect
    pairs        runs both models on the same weights, and pairs the uses of the same elements
"""
