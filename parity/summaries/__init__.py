"""Summarise results for people.

findings lists the facts of each first difference, summary writes verdict and counts, and notes says why results are
undecided. failures names in a verdict what failed or is NaN. row_limit chooses the limit that a row states. report_text
writes the whole report as text; page/, beside this room, as HTML.
"""
