"""Name the cause of a divergence in a comparison of recorded arrays; derive finds its own (derive/explain).

guessing recomputes activations, epsilons and orders, of which hypotheses lists the variants; next_steps says what to do
about a cause. unequal_layers lists the weights of a layer that differ.
"""
