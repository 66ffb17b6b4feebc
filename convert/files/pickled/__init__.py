"""Checkpoints that are pickles (torch, paddle): interpreted by a reader of our own, which calls nothing."""
