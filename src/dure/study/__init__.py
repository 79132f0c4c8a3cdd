"""A study as data: its question, its steps, its permits, its life-cycle, and what methods exchange."""
