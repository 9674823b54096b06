"""Read: panels of any rows, by range, decoded in threads into batches."""
