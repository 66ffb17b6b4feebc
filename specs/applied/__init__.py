"""Apply a Table to arrays.

moves says which elements go where, layout has all moves of a Table, and arrays runs them in numpy.
"""
