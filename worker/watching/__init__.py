"""What happens to requests and to the process, told once: lines, numbers, incidents, traces."""
