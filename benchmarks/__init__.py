"""`make bench`: ratios within one run, so that they hold on noisy machines."""
