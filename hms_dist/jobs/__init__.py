"""Jobs: leases on files, worker processes, processes that a command starts, and requests to stop."""
