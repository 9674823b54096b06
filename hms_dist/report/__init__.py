"""Reports and pictures for people."""
