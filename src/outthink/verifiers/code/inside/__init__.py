"""What runs inside the sandbox: standard library only, nothing else of this package is there."""
