"""Prove a Table on other weights and inputs, list what may be permuted, and say why models differ.

prove runs both models and decides; gradients tells which parameters are unobservable, unproven which integers no proof
exchanges; freedom exchanges elements; causes says why values part, at the uses that pairs puts beside each other, and
windows how convolutions differ.
"""
