"""Record a tape of a model's primitive operations, alike for every framework, and run it on numpy arrays.

tape defines it, program runs it, and sides hides the framework (module_side, call, caches, cotangents). draws draws
weights for users' models, and inputs other inputs. sites and frames name places in the user's code, and names compares
names of parameters. outputs lists the results of a call (listed, Named) and compares those of two. axis_roles tells
what an axis of a parameter is used as, heads or parts, sources where the parts of an axis come from, and equal_parts
whether they have one length. reason is why something is not proven, with its remedy.

    torch    torch_tape, torch_recorder (lets torch decompose what it can, whole LSTMs too), torch_values, torch_dense,
             torch_state (what can be recorded), torch_attention (with one scale); all else: torch_forms
             (layouts, arithmetic, convolutions) or torch_decompositions
    JAX      jax_tape, jax_groups, jax_wide, jax_dense; its primitives: jax_values (results), jax_recorder (forms)
    paddle   paddle_tape (sets recurrent layers in training mode, where their gradients are), paddle_recorder,
             paddle_names (of settings), paddle_values; a new one: paddle_forms or paddle_decompositions
    both     einsum, outer (gradients by large matrices)

Operations get their names and settings from torch_values, paddle_recorder and jax_recorder.

Nothing here knows of a second model but outputs, inputs, still (inputs that one model alone is given) and precomputed
(tables that both compute).
"""
