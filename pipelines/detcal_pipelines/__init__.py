"""Running detcal: recipes, plans, clusters and the command line."""
