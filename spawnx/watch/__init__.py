"""Which ranks have ended, and how."""
