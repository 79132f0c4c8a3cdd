"""What runs inside a hospital: settings, inbox and permits, its own store of rounds, and the runner."""
