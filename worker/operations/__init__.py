"""For operators: what is where, what is wrong, who may do what, and dead letters."""
