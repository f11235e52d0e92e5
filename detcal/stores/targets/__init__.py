"""What writes files: the one zarr writer, exports from what it wrote, and the free place that they take."""
