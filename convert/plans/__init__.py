"""Plan the conversion of a model of a known architecture.

planning      builds a Plan
plan          defines it: what it does, what it assumes, and whether that is accepted
choosing      tries each reading on shapes and on examples
by_dialect    lists the steps from one dialect to another
nnx           names the arrays of a target as nnx does
refusal       takes one replica of a file, or says why no reading fits
"""
