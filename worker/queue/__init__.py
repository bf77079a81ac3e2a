"""Where messages are, and which delivery holds them."""
