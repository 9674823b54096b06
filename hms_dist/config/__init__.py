"""Configurations as frozen dataclasses, filled from YAML and the command line. The only room that imports
jsonargparse."""
