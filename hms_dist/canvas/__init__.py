"""Composition of panels into model input, batched, on the device; normalisation and augmentation."""
