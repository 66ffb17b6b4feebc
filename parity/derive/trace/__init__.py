"""Record a tape of a model's primitive operations, alike for every framework, and run it on numpy arrays.

tape defines it, sides hides the framework, and torch_*, jax_* and paddle_* record it. Others read or rewrite tapes.
Nothing here knows of a second model, but for islands: tables that both models compute.
"""
