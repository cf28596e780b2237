"""Media that several processes share: a file for each, with its format. What only the supervisor needs is beside it."""
