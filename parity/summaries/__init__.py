"""Summarise results for people.

findings lists the facts of each first difference, and summary writes verdict, counts and causes. row_limit chooses the
limit that a row states. report_text writes the whole report as text; page/, beside this room, as HTML.
"""
