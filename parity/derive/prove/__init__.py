"""Prove a Table on other weights and inputs, list what may be permuted, and say why models differ."""
