"""What reads files: lazily, block by block, with what they lack as NaN."""
