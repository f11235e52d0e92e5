"""Steps of a laboratory."""
