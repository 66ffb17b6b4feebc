"""Define what a derivation found, and say it in words.

evidence has it, and derivation says it, "next: ..." too. remarks says what is known beside the verdict, and comments
writes it above the lines of the Table.

What is unusual in a finished Table: lone finds lines of one block, uncounted_blocks those that {i} does not count,
transposed square matrices in an unusual order of axes, exchanged parts that stand in another order.
"""
