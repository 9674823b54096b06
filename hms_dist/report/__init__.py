"""Report pages, pictures of samples, and the status of runs."""
