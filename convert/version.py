"""Define the version of the converter, which its records name."""

__version__ = "0.1.0"  # a literal: asking the installation takes longer than reading a checkpoint's directory
