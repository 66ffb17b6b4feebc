"""Define what a comparison returns, and measure how far two arrays are apart.

result is the record of one check of one pair, elements compares arrays, and tolerance has the limits. guesses writes a
cause in words, unequal_weights tells that weights differ before the run, and naming says what arrays are called.
"""
