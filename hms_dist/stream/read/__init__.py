"""Reading of panels of any rows, by byte range, decoded by threads into batches."""
