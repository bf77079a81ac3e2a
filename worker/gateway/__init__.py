"""Calls of the gateway: one call as a value, and what each of its failures means."""
