"""From a hospital's own export to OMOP CDM, by a plan that a data steward can read."""
