"""Core: errors, files, limits, logging, keyed draws, compiled loops and remote reads. Imports no other room."""
