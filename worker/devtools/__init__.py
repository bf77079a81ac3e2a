"""Stand-ins for development: the simulated gateway, embedded Valkey and the demo. The image leaves them out."""
