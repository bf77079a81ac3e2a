"""Whether a call may start now: one budget for the whole fleet."""
