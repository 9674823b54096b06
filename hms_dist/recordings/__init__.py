"""Recordings: Kaggle's parquet files in, `Recording` out; and a simulator of both."""
