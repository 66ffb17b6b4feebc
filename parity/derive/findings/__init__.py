"""Define what a derivation found, and say it in words.

    evidence          the records of what was given, matched and judged, and of what differs
    derivation        the verdict, where the models part, and what to do next
    remarks           what a reader should know beside the verdict
    comments          the comments above the lines of the Table

What is unusual in a finished Table:

    lone              lines that hold for one block alone
    uncounted_blocks  blocks that no {i} counts
    transposed        square matrices in an unusual order of axes
    exchanged         parts that stand in another order on the other side
"""
