"""Commands: the table of `hms-dist` commands, and the one that needs both the offline and the online half."""
