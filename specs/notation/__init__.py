"""Parse and print a Table.

A side of a line is a signature: paths parses names with their holes, {i} and {s=a|b}, and axes what follows the colon.
lines has the records, parsing reads and saves them, and line_checks checks that a line means something. claims reads
what a derived Table says against itself. compose joins two Tables; equating relates their axes. folding shortens
numbered names, and dtype_kinds groups dtypes.
"""
