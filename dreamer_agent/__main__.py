"""`python -m dreamer_agent` is the command line."""

from dreamer_agent.cli import main

main()
