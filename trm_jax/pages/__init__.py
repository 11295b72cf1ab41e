"""What the pages of `compare` and `evaluate` share: one HTML file each that needs nothing but itself."""
