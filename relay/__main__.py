"""`python -m relay` is the command `relay700`."""

from relay.cli import main

main(prog_name="relay700")
