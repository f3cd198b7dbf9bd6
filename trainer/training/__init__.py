"""The training loop: steps, devices, optimizer, state, interruptions."""
