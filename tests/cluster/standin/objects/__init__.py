"""What objects may be: their schema, what the server validates beyond it, and what it fills in."""
