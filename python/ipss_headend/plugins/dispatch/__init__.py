"""Plugins for dispatch. They use what any plugin may use, and nothing else."""
