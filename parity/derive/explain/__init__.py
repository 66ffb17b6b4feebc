"""Locate where two models part, and confirm each cause by running both without it.

    explanation    lists each place where both part, and tries the edits that may be its cause
    recomputation  runs both models with an edit, and keeps the one after which most of their values agree
    excerpts       cuts both tapes to a few uses before that place, so that such a run takes less
    divergence     defines such a place, and tells whether its cause is confirmed
    heads          compares numbers of heads

prove/pairs says which uses of both sides stand beside each other.
"""
