"""Define what a derivation found, and say it in words.

evidence has it, and derivation says it, "next: ..." too. remarks says what is known beside the verdict, and comments
writes it above the lines of the Table.
"""
