"""The whole job on one machine: servers to play with, and the scenes that are played."""
