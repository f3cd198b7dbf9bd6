"""Training from features beside training from pixels."""
