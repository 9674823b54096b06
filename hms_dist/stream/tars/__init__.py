"""Tars: a shard set read front to back, where only whole files can be had."""
