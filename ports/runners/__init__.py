"""Call, trace, differentiate and train models of any framework, and read their arrays: one Runner a framework."""
