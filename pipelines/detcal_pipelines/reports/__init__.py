"""The report of an output: what made it, from what, at what cost, and how it looks; as one HTML file or as text."""
