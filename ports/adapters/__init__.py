"""Each framework behind the common call; imported only when asked for."""
