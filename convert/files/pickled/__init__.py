"""Read checkpoints that are pickles (torch, paddle) by an interpreter of our own, which calls nothing."""
