"""Ridge, lasso and elastic-net paths: what `penalty` asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dure.errors import InvalidParameter
from dure.language import Words
from dure.study.method import Kept, Question, State
from dure.study.result import Result
from dure.study.rows import Column, Rows
from dure.study.summary import Declaration, Summary, Total


class Path:
    """The method protocol's parts for a penalised model; `Regression` hands them on."""

    def start(self, question: Question) -> State:
        raise self._missing()

    def declare(self, question: Question, state: State) -> Declaration:
        raise self._missing()

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        raise self._missing()

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        raise self._missing()

    def derives(self, question: Question) -> Mapping[str, Column]:
        raise self._missing()

    def derive(self, rows: Rows, question: Question, result: Result, kept: Kept) -> Mapping[str, Any]:
        raise self._missing()

    @staticmethod
    def _missing() -> InvalidParameter:
        problem = Words("Penalised models are not here yet", "벌점 모형은 아직 없습니다")
        return InvalidParameter(method="regression", parameter="penalty", problem=problem)
