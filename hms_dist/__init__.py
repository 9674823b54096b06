"""hms_dist: pictures of harmful brain activity, from EEG recordings to trained ensembles."""

import os

__version__ = "0.1.0"
BEGAN_AS = (os.getpid(), os.getppid())
"""This process and its parent, asked before anything slow is imported: a launcher may die meanwhile."""
