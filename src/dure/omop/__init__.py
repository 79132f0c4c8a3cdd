"""The OMOP Common Data Model 5.4 as data, its DuckDB files, and the questions a study asks of them."""
