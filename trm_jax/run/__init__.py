"""What keeps a run alive: its settings, devices, checkpoints and records."""
