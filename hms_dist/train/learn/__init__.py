"""Learn: the network at work: built, trained step by step, metered, evaluated."""
