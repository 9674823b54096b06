"""The table of `hms-dist` commands, and the command that needs both the offline and the online half."""
