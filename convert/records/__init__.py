"""Build, read and verify the record that travels with a converted file.

new builds it, record reads it, other_file compares the file with it whenever it is read; altered reports what was
changed since. verification reads the whole file again, as checked does for conversions; not_finite counts NaNs and
infinities.
"""
