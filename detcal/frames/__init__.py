"""What all subjects share about a stack: what one is, and what of it was measured."""
