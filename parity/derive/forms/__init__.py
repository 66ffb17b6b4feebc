"""Change a tape to another form that computes the same, where the two models compose one function otherwise.

a product     scales moves its factors to one side, bilinear and modulated multiply the other operand; mixed writes
              weighted means by one parameter, choices, and sums over stacked values, as sums of two, real_parts complex
              numbers as pairs of real ones; factored multiplies by both factors of a low-rank kernel
columns       joined multiplies each of several values that a product reads by its own rows, writes columns of one
              number as terms, and leaves out ones and zeros
convolutions  convolutions writes them as products over patches, and rewrites those whose result is cropped
experts, rows gathered multiplies rows by every expert's matrix and chooses results; routed lets experts read every
              row; one_hot looks rows up by their numbers, picked before a product of the whole table
values        cancelled leaves out running maxima and masks that do not show in outputs
"""
