"""Prove a Table on other weights and inputs, list what may be permuted, and say why models differ.

prove runs both models and decides, also which parameters are unobservable; freedom exchanges elements; causes says why
values part, at the uses that pairs puts beside each other.
"""
