"""Pictures of the README, each made by a script of its own."""
