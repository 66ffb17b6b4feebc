"""Load pages from outside, and check them.

outside loads a page, checks checks it as a whole: asked answers `infer` meanwhile, and unseen finds what no Config in
`tiny` shows.
"""
