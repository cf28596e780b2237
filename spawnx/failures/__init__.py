"""What happens when a rank has failed: from the first sign to the exception."""
