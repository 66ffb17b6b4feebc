"""Name the cause of a divergence.

guessing recomputes activations, epsilons and orders, of which hypotheses lists the variants; next_steps says what to do
about a cause.
"""
