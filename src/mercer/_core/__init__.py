"""What every room stands on: configuration, input checks, saving, progress."""
