"""`python -m relay` runs the `relay700` command."""

from relay.cli import main

main(prog_name="relay700")
