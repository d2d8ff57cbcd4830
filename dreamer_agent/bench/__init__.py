"""Other agents and long measurements beside ours."""
