"""Job scripts for batch systems, as pure functions to text, and chains of commands."""
