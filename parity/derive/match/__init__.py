"""Match the parameters of two tapes by the values that meet them.

The result is an array: the left element of each right one. Where it comes from:

    match        searches: lists the left uses, and tries attempts until all right uses have partners
    attempt      finds a partner for each use, with the methods of the five classes below
    walk         walks the right tape with parameters as symbols, and stops where one meets an activation
    choices      records the partners that an attempt takes, and steps back to them
    analogy      prefers partners whose names go together as those of earlier blocks
    hints        reads what the user knows: lines of a Table, a checkpoint

Classes from which Attempt inherits, each from the next, and choices last; each matches one kind of use:

    products     matrices, and kernels of convolutions, as products of patches
    regroup      products that the sides compose differently
    alike_rows   orders rows that an earlier step does not tell apart
    factors      factors and terms
    biases       biases that one side alone has, as zeros
    following    uses that meet other values, by the products whose results they read

What tells one use or element from others:

    uses         lists the left uses, with what identifies each
    columns      statistics of what each element meets
    roles        what the columns of a product's result are for
    met_columns  what these columns are multiplied with, added to or summed over with
    operations   what an operation between products computes
    origins      the products that channels are made of
    added        the products to which the columns of one are added
    reach        the matrices that read what a matrix makes, for prove/freedom

Parameters as symbols:

    symbols      which elements stand where, and what is computed from them
    stepped      element numbers, stored by their steps along each axis
    delayed      operations on parameters alone, delayed until these meet an activation
    batches      parameters whose sum is a product's matrix, and matrices of a batch that are one

After the match:

    complete     continues the map where no value was seen; conclude/writing runs it
    siblings     completes a parameter as its siblings in other blocks are composed
    advice       says what to compare by hand where nothing fits a use
"""
