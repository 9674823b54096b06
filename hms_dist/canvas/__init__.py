"""Canvas: panels of a batch composed into model input, on the device."""
