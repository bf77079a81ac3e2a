"""What happens to one request, from its claim to its one answer."""
