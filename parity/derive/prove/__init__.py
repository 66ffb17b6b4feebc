"""Prove a Table on other weights and inputs, list what may be permuted, and say why models differ.

prove runs both models, decides, and says which inputs kept their values; translated gives the right model the left
one's weights; gradients compares these parameter by parameter; observable tells which parameters no output depends on,
unproven which integers and masks no proof exchanges, stored which numbers one side alone has, integers which are too
large for JAX, and orders which stored permutations went into a Table. A trial runs both on other inputs and weights:
signs with other signs, larger with larger weights, absent with tokens that no input has, zeros with an example of
zeros, masks with other masks, examples with twice as many examples, and longer with longer inputs; constants runs them
with numbers of the other side, and unreached with values beyond limits that one side alone has. freedom exchanges
elements (reach tells which exchanges may have no effect); explanation says where values part and why (each place is a
divergence), at the uses that pairs puts beside each other: recomputation runs both models with an edit of one
(excerpts: from a few uses before they part on), convolutions compares their windows, and heads their numbers of heads.
"""
