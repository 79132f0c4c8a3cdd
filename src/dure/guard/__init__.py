"""What may leave a hospital: rules as data, one gate, one release, and a record nobody can quietly change."""
