"""Headers: what goes upstream, what comes back, and what never passes."""
