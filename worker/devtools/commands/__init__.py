"""Commands that need the stand-ins."""
