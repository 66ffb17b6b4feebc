"""One Runner a framework: how to call a model, trace it, differentiate it, train it and read its arrays."""
