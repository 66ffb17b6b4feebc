"""Describe a file without converting it: describe collects what is known of it, text prints that; table_fit shows how a
file reads through a Table, of_state what is in the state of an optimizer.
"""
