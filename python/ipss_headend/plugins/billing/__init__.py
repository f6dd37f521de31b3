"""Plugins for billing. They use what any plugin may use, and nothing else."""
