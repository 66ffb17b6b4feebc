"""Prove that a Table loses no element.

proof lays out both directions. filling fills the right side, places locates each cell, and coverage proves that every
element is used, or filled, once. cut counts what is dropped of an array.
"""
