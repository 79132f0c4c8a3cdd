"""The one command, `dure`."""
