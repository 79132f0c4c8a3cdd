"""Large-scale covariates: which concepts each person has in a window, as a list, so that thousands stay sparse.

One binary covariate for each concept, as FeatureExtraction's domain covariates are (Schuemie et al., OHDSI); concepts
are counted as recorded, not by their ancestors.
"""

from __future__ import annotations


def codes_of_people(events: str) -> str:
    """SQL of one row per person with any: person_id, codes (BIGINT[], each once, increasing), from SQL of events with
    person_id and concept."""
    return f"""SELECT person_id, list_sort(list(DISTINCT CAST(concept AS BIGINT))) AS codes
        FROM ({events}) GROUP BY person_id"""
