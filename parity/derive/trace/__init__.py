"""Record a tape of a model's primitive operations, alike for every framework, and run it on numpy arrays.

tape defines it, sides hides the framework, torch_*, jax_* and paddle_* record it. edits defines a change of a tape;
numbers and sums yield such changes, scales and crops make one. outputs compares what two models return.
Nothing here knows of a second model but outputs, numbers, sums, still (inputs that one model alone is given) and
islands (tables that both compute).
"""
