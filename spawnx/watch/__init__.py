"""The watch over ranks: sees which have ended, and how."""
