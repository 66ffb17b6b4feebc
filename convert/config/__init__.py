"""Determine the Config of a file's model.

configure sorts values into known, assumed and open, from settings (the user's), inference (shapes), module_settings
(of pickled modules), the record and variants; conventions are fields that no array shows, pixels the preprocessing.
open_fields is the error where nobody states a value.
"""
