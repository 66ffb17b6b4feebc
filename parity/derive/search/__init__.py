"""Search the match of two models: run both, match their tapes, and try again in other ways where parameters are left.

candidates runs the models for the matching: the left one on known weights, the right one as it is called. as_called
matches them in each way in which the right one may be called, with masks and tables of both at their own values; alone
finds other buffers of one side; recomposed matches tapes of another form where the plain ones end early, as with masks
that are filled alike, and edited those with an edit. rounds numbers the matches in what is reported of the progress.
"""
