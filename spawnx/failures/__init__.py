"""The handling of a failed rank, from the first sign to the exception."""
