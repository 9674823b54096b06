"""Signals: montages and filters on arrays of microvolts."""
