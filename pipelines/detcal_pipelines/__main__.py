"""python -m detcal_pipelines is detcal."""

from detcal_pipelines.cli import main

main(prog_name="detcal")
