"""Change a tape to another form that computes the same, where the two models compose one function otherwise.

products       scales moves factors to one side of products, bilinear and modulated multiply the other operand,
               mixed writes weighted means by one parameter, real_parts complex numbers as pairs of real ones,
               factored multiplies by both factors of a low-rank kernel
convolutions   unfolded writes them as products over patches, crops those whose result is cropped
rows           gathered chooses results in place of matrices, routed lets experts read every row, one_hot looks
               rows up by their numbers, selects adds what is chosen
values         cancelled leaves out running maxima and masks that do not show in outputs
"""
