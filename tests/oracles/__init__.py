"""Models that say what the ledger and the admission must do."""
