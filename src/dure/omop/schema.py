"""The tables of the OMOP Common Data Model 5.4 as data: every column, its type, whether required.

Source: OHDSI CommonDataModel, release 5.4. Two departures, both forced by real data: every identifier is
BIGINT (the published INTEGER overflows), and NUMERIC is DOUBLE (DuckDB's bare NUMERIC keeps three decimals).
"""

from __future__ import annotations

from dataclasses import dataclass

TEXT_IDENTIFIERS = frozenset(
    {
        "domain_id",
        "vocabulary_id",
        "concept_class_id",
        "relationship_id",
        "reverse_relationship_id",
        "source_vocabulary_id",
        "cost_domain_id",
        "unique_device_id",
        "production_id",
        "specimen_source_id",
    }
)


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its CDM name, DuckDB type, and whether the CDM requires a value."""

    name: str
    type: str
    required: bool

    @property
    def definition(self) -> str:
        """Always quoted, because `note_nlp.offset` is a word of SQL."""
        return f'"{self.name}" {self.type}' + (" NOT NULL" if self.required else "")


@dataclass(frozen=True, slots=True)
class Table:
    """One table, with its columns in the order of the specification."""

    name: str
    columns: tuple[Column, ...]

    @property
    def definition(self) -> str:
        return f'CREATE TABLE "{self.name}" ({", ".join(column.definition for column in self.columns)})'

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


def _column(word: str) -> Column:
    """`name`, `name!` (required) or `name:type`; where no type is written, the CDM's suffixes tell it."""
    word, _, written = word.partition(":")
    name = word.rstrip("!")
    if written:
        kind = written.upper()
    elif name.endswith("_datetime"):
        kind = "TIMESTAMP"
    elif name.endswith("_date"):
        kind = "DATE"
    elif name not in TEXT_IDENTIFIERS and name.endswith(("_id", "_id_1", "_id_2")):
        kind = "BIGINT"
    else:
        kind = "VARCHAR"
    return Column(name, kind, word.endswith("!"))


_WHERE = "provider_id visit_occurrence_id visit_detail_id"

_CLINICAL = {
    "person": """person_id! gender_concept_id! year_of_birth!:integer month_of_birth:integer
        day_of_birth:integer birth_datetime race_concept_id! ethnicity_concept_id! location_id provider_id
        care_site_id person_source_value gender_source_value gender_source_concept_id race_source_value
        race_source_concept_id ethnicity_source_value ethnicity_source_concept_id""",
    "observation_period": """observation_period_id! person_id! observation_period_start_date!
        observation_period_end_date! period_type_concept_id!""",
    "visit_occurrence": """visit_occurrence_id! person_id! visit_concept_id! visit_start_date!
        visit_start_datetime visit_end_date! visit_end_datetime visit_type_concept_id! provider_id
        care_site_id visit_source_value visit_source_concept_id admitted_from_concept_id
        admitted_from_source_value discharged_to_concept_id discharged_to_source_value
        preceding_visit_occurrence_id""",
    "visit_detail": """visit_detail_id! person_id! visit_detail_concept_id! visit_detail_start_date!
        visit_detail_start_datetime visit_detail_end_date! visit_detail_end_datetime
        visit_detail_type_concept_id! provider_id care_site_id visit_detail_source_value
        visit_detail_source_concept_id admitted_from_concept_id admitted_from_source_value
        discharged_to_source_value discharged_to_concept_id preceding_visit_detail_id parent_visit_detail_id
        visit_occurrence_id!""",
    "condition_occurrence": f"""condition_occurrence_id! person_id! condition_concept_id!
        condition_start_date! condition_start_datetime condition_end_date condition_end_datetime
        condition_type_concept_id! condition_status_concept_id stop_reason {_WHERE}
        condition_source_value condition_source_concept_id
        condition_status_source_value""",
    "drug_exposure": f"""drug_exposure_id! person_id! drug_concept_id! drug_exposure_start_date!
        drug_exposure_start_datetime drug_exposure_end_date! drug_exposure_end_datetime verbatim_end_date
        drug_type_concept_id! stop_reason refills:integer quantity:double days_supply:integer sig
        route_concept_id lot_number {_WHERE} drug_source_value drug_source_concept_id route_source_value
        dose_unit_source_value""",
    "procedure_occurrence": f"""procedure_occurrence_id! person_id! procedure_concept_id! procedure_date!
        procedure_datetime procedure_end_date procedure_end_datetime procedure_type_concept_id!
        modifier_concept_id quantity:integer {_WHERE} procedure_source_value procedure_source_concept_id
        modifier_source_value""",
    "device_exposure": f"""device_exposure_id! person_id! device_concept_id! device_exposure_start_date!
        device_exposure_start_datetime device_exposure_end_date device_exposure_end_datetime
        device_type_concept_id! unique_device_id production_id quantity:integer {_WHERE} device_source_value
        device_source_concept_id unit_concept_id unit_source_value unit_source_concept_id""",
    "measurement": f"""measurement_id! person_id! measurement_concept_id! measurement_date!
        measurement_datetime measurement_time measurement_type_concept_id! operator_concept_id
        value_as_number:double value_as_concept_id unit_concept_id range_low:double range_high:double {_WHERE}
        measurement_source_value measurement_source_concept_id unit_source_value unit_source_concept_id
        value_source_value measurement_event_id meas_event_field_concept_id""",
    "observation": f"""observation_id! person_id! observation_concept_id! observation_date!
        observation_datetime observation_type_concept_id! value_as_number:double value_as_string
        value_as_concept_id qualifier_concept_id unit_concept_id {_WHERE} observation_source_value
        observation_source_concept_id unit_source_value qualifier_source_value value_source_value
        observation_event_id obs_event_field_concept_id""",
    "death": """person_id! death_date! death_datetime death_type_concept_id cause_concept_id
        cause_source_value cause_source_concept_id""",
    "note": f"""note_id! person_id! note_date! note_datetime note_type_concept_id! note_class_concept_id!
        note_title note_text! encoding_concept_id! language_concept_id! {_WHERE} note_source_value
        note_event_id note_event_field_concept_id""",
    "note_nlp": """note_nlp_id! note_id! section_concept_id snippet offset lexical_variant!
        note_nlp_concept_id note_nlp_source_concept_id nlp_system nlp_date! nlp_datetime term_exists
        term_temporal term_modifiers""",
    "specimen": """specimen_id! person_id! specimen_concept_id! specimen_type_concept_id! specimen_date!
        specimen_datetime quantity:double unit_concept_id anatomic_site_concept_id disease_status_concept_id
        specimen_source_id specimen_source_value unit_source_value anatomic_site_source_value
        disease_status_source_value""",
    "fact_relationship": """domain_concept_id_1! fact_id_1! domain_concept_id_2! fact_id_2!
        relationship_concept_id!""",
    "episode": """episode_id! person_id! episode_concept_id! episode_start_date! episode_start_datetime
        episode_end_date episode_end_datetime episode_parent_id episode_number:integer
        episode_object_concept_id! episode_type_concept_id! episode_source_value episode_source_concept_id""",
    "episode_event": "episode_id! event_id! episode_event_field_concept_id!",
}

_SYSTEM = {
    "location": """location_id! address_1 address_2 city state zip county location_source_value
        country_concept_id country_source_value latitude:double longitude:double""",
    "care_site": """care_site_id! care_site_name place_of_service_concept_id location_id
        care_site_source_value place_of_service_source_value""",
    "provider": """provider_id! provider_name npi dea specialty_concept_id care_site_id
        year_of_birth:integer gender_concept_id provider_source_value specialty_source_value
        specialty_source_concept_id gender_source_value gender_source_concept_id""",
    "payer_plan_period": """payer_plan_period_id! person_id! payer_plan_period_start_date!
        payer_plan_period_end_date! payer_concept_id payer_source_value payer_source_concept_id
        plan_concept_id plan_source_value plan_source_concept_id sponsor_concept_id sponsor_source_value
        sponsor_source_concept_id family_source_value stop_reason_concept_id stop_reason_source_value
        stop_reason_source_concept_id""",
    "cost": """cost_id! cost_event_id! cost_domain_id! cost_type_concept_id! currency_concept_id
        total_charge:double total_cost:double total_paid:double paid_by_payer:double paid_by_patient:double
        paid_patient_copay:double paid_patient_coinsurance:double paid_patient_deductible:double
        paid_by_primary:double paid_ingredient_cost:double paid_dispensing_fee:double payer_plan_period_id
        amount_allowed:double revenue_code_concept_id revenue_code_source_value drg_concept_id
        drg_source_value""",
    "metadata": """metadata_id! metadata_concept_id! metadata_type_concept_id! name! value_as_string
        value_as_concept_id value_as_number:double metadata_date metadata_datetime""",
    "cdm_source": """cdm_source_name! cdm_source_abbreviation! cdm_holder! source_description
        source_documentation_reference cdm_etl_reference source_release_date! cdm_release_date! cdm_version
        cdm_version_concept_id! vocabulary_version!""",
}

_DERIVED = {
    "drug_era": """drug_era_id! person_id! drug_concept_id! drug_era_start_date! drug_era_end_date!
        drug_exposure_count:integer gap_days:integer""",
    "dose_era": """dose_era_id! person_id! drug_concept_id! unit_concept_id! dose_value!:double
        dose_era_start_date! dose_era_end_date!""",
    "condition_era": """condition_era_id! person_id! condition_concept_id! condition_era_start_date!
        condition_era_end_date! condition_occurrence_count:integer""",
}

_VOCABULARY = {
    "concept": """concept_id! concept_name! domain_id! vocabulary_id! concept_class_id! standard_concept
        concept_code! valid_start_date! valid_end_date! invalid_reason""",
    "vocabulary": """vocabulary_id! vocabulary_name! vocabulary_reference vocabulary_version
        vocabulary_concept_id!""",
    "domain": "domain_id! domain_name! domain_concept_id!",
    "concept_class": "concept_class_id! concept_class_name! concept_class_concept_id!",
    "relationship": """relationship_id! relationship_name! is_hierarchical! defines_ancestry!
        reverse_relationship_id! relationship_concept_id!""",
    "concept_relationship": """concept_id_1! concept_id_2! relationship_id! valid_start_date!
        valid_end_date! invalid_reason""",
    "concept_ancestor": """ancestor_concept_id! descendant_concept_id! min_levels_of_separation!:integer
        max_levels_of_separation!:integer""",
    "concept_synonym": "concept_id! concept_synonym_name! language_concept_id!",
    "source_to_concept_map": """source_code! source_concept_id! source_vocabulary_id! source_code_description
        target_concept_id! target_vocabulary_id!:varchar valid_start_date! valid_end_date! invalid_reason""",
    "drug_strength": """drug_concept_id! ingredient_concept_id! amount_value:double amount_unit_concept_id
        numerator_value:double numerator_unit_concept_id denominator_value:double
        denominator_unit_concept_id box_size:integer valid_start_date! valid_end_date! invalid_reason""",
}

TABLES: dict[str, Table] = {
    name: Table(name, tuple(_column(word) for word in words.split()))
    for name, words in (_CLINICAL | _SYSTEM | _DERIVED | _VOCABULARY).items()
}


@dataclass(frozen=True, slots=True)
class DomainTable:
    """Where one OMOP domain keeps its events: the table and the columns that every question needs."""

    table: str
    id: str
    concept: str
    type_concept: str
    date: str
    source_value: str
    has_values: bool = False


DOMAINS: dict[str, DomainTable] = {
    "condition": DomainTable(
        "condition_occurrence",
        "condition_occurrence_id",
        "condition_concept_id",
        "condition_type_concept_id",
        "condition_start_date",
        "condition_source_value",
    ),
    "drug": DomainTable(
        "drug_exposure",
        "drug_exposure_id",
        "drug_concept_id",
        "drug_type_concept_id",
        "drug_exposure_start_date",
        "drug_source_value",
    ),
    "measurement": DomainTable(
        "measurement",
        "measurement_id",
        "measurement_concept_id",
        "measurement_type_concept_id",
        "measurement_date",
        "measurement_source_value",
        has_values=True,
    ),
    "observation": DomainTable(
        "observation",
        "observation_id",
        "observation_concept_id",
        "observation_type_concept_id",
        "observation_date",
        "observation_source_value",
        has_values=True,
    ),
    "procedure": DomainTable(
        "procedure_occurrence",
        "procedure_occurrence_id",
        "procedure_concept_id",
        "procedure_type_concept_id",
        "procedure_date",
        "procedure_source_value",
    ),
    "visit": DomainTable(
        "visit_occurrence",
        "visit_occurrence_id",
        "visit_concept_id",
        "visit_type_concept_id",
        "visit_start_date",
        "visit_source_value",
    ),
}
