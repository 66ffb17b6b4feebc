"""Compare two checkpoints.

    compare              as models, whatever their dialects and formats
    plans                plans the two files for that
    across               by a Table
    arrays               by names alone

What all three use:

    array_differences    compares the arrays of two sides
    plain_values         compares numbers and texts
    numbered             matches the states of two torch optimizers, which number parameters
    places               matches the weights, and averages of them, in places that two files name otherwise

The result:

    text                 prints it
    strangers            says why two files cannot be compared
"""
