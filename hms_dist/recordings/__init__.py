"""Reading Kaggle's Parquet files into `Recording`, and an EEG simulator."""
