"""Build, read and verify the record that travels with a converted file.

new             builds the record of a conversion
record          reads it
other_file      compares the file with its record, whenever that is read
checked         does so for conversions, by all values
verification    reads the whole file again, and compares it with its record
altered         reports what was damaged or changed since
odd_values      counts NaNs, infinities and negative second moments
"""
