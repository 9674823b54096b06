"""Leases on files, worker processes, child processes and stop requests."""
