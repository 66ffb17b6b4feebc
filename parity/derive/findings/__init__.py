"""Define what a derivation found, and say it in words.

    records           what was given, matched and judged, and what differs
    evidence          all four records, and what follows from them
    derivation        the verdict, where the models part, and what to do next
    remarks           what a reader should know beside the verdict
    comments          the comments above the lines of the Table
    converting        the commands that convert by the Table

What is unusual in a finished Table:

    lone              lines that hold for one block alone
    uncounted_blocks  blocks that no {i} counts
    ranges            rows and other ranges that one model lacks
    transposed        square matrices in an unusual order of axes
    exchanged         parts that stand in another order on the other side
"""
