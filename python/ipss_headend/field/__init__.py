"""Everything towards meters: who they are, what is asked of them, and what comes back."""
