"""Job scripts for batch systems, as text from pure functions, and pipelines of commands."""
