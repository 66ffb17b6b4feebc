"""Describe a file without converting it: describe collects what is known of it, text prints that; by_table shows how a
file reads through a Table.
"""
