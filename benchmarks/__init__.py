"""Measure ports and conversions as ratios within one run, so that they hold on noisy machines: `make bench`."""
