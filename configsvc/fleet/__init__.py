"""What agents report, and later the rules of rollouts."""
