"""Signal processing on arrays of microvolts: montages, filters, transforms, statistics."""
