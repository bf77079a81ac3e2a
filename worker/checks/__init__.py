"""Whether a request's schemas are JSON Schemas, and whether an answer keeps to them; judged in a process apart."""
