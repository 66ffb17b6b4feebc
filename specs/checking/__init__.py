"""Load pages from outside, and check them.

outside loads a page, checks checks it as a whole, and asked answers `infer` meanwhile.
"""
