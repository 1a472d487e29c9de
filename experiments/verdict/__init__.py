"""What tells a right map from a wrong one."""
