"""Predictions as tables, their metrics, and the lineage of the models that made them."""
