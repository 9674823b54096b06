"""hms_dist: pictures of harmful brain activity, from EEG recordings to trained ensembles."""

__version__ = "0.1.0"
