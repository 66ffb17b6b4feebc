"""Describe a file without converting it.

describe     collects what is known of a file
text         writes that as lines for people
table_fit    describes how a file reads through a Table
of_state     describes the state of an optimizer
"""
