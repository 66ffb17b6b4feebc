"""Determine the Config of a file's model.

    configure          sorts the values into known, assumed and open

What states a value:

    settings           the user, on the command line and in configuration files
    inference          the names and shapes of the arrays
    module_settings    the modules of a model that was pickled whole
    variants           the official variants; the records of other files
    conventions        the dialect, for fields that no array shows
    pixels             all of these, for the preprocessing

Where nothing states it:

    open_fields        refuses the file, and names each remedy
"""
