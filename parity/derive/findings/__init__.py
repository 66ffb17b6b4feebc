"""Define what a derivation found, and say it in words.

    records           what was given, matched and judged, and what differs
    evidence          all four records, and what follows from them
    derivation        the verdict, where the models part, and what to do next
    next_steps        what may be advised, in words
    remarks           what a reader should know beside the verdict
    comments          the comments above the lines of the Table
    converting        the commands that convert by the Table

What is unusual in a finished Table:

    blocks            lines that hold for one block alone, and blocks that no {i} counts
    ranges            rows and other ranges that one model lacks
    orders            parts in another order on the other side, square matrices in an unusual order of axes
"""
