"""Record a tape of a model's primitive operations, alike for every framework, and run it on numpy arrays.

tape defines it, sides hides the framework, torch_*, jax_* and paddle_* record it. outputs compares what is returned.
Nothing here knows of a second model, but for islands: tables that both models compute.
"""
