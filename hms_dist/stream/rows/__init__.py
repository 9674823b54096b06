"""Rows of an epoch: filters, selections, order and label overlays."""
