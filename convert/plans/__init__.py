"""Plan the conversion of a model of a known architecture.

planning builds plan.Plan, which says what it assumes, and decides whether that is accepted; choosing tries each
reading on shapes and on examples, by_dialect makes the steps, nnx names the target's arrays as nnx does. refusal
takes one replica of a file, or says why no reading fits.
"""
