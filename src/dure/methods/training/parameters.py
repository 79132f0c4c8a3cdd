"""What training can be asked: the network, its rounds and steps, and what is held out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

Width = Annotated[int, Field(ge=1, le=65536)]
ONLY_WITH = {"mu": "fedprox", **dict.fromkeys(("server_learning_rate", "beta1", "beta2", "tau"), "fedadam")}


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    outcome: str = Field(
        description="a 0/1 column, or a category of two levels, the second being the event",
        json_schema_extra={"ko": "0/1 열, 또는 둘째 수준이 사건인 두 수준 범주"},
    )
    inputs: tuple[str, ...] = Field(
        min_length=1,
        description="columns; a category: one input per level",
        json_schema_extra={"ko": "입력 열. 범주는 수준마다 입력 하나"},
    )
    hidden: tuple[Width, ...] = Field(
        (16,),
        description="widths of the hidden layers (ReLU); none: logistic regression",
        json_schema_extra={"ko": "은닉층(ReLU)의 너비. 없으면 로지스틱 회귀"},
    )
    rounds: int = Field(
        30, ge=1, le=5000, description="training rounds at most", json_schema_extra={"ko": "학습 라운드 수(최대)"}
    )
    local_epochs: int = Field(
        2,
        ge=1,
        le=100,
        description="passes over a hospital's people in a round",
        json_schema_extra={"ko": "라운드마다 병원에서 자료를 훑는 횟수"},
    )
    batch_size: int | None = Field(
        32,
        ge=1,
        description="people in a gradient step; none: all of the hospital's",
        json_schema_extra={"ko": "경사 한 걸음에 쓰는 사람 수. 없으면 병원의 모두"},
    )
    learning_rate: float = Field(
        0.2, gt=0, le=10, description="length of a gradient step", json_schema_extra={"ko": "경사 하강 보폭"}
    )
    l2: float = Field(
        0.001,
        ge=0,
        le=1,
        description="penalty on weights; pulls own heads to the shared one",
        json_schema_extra={"ko": "가중치 벌점. 자기 출력층을 공유 출력층으로 당김"},
    )
    strategy: Literal["fedavg", "fedprox", "fedadam"] = Field(
        "fedavg",
        description="how hospitals' steps become one: averaged; held near the shared weights; averaged with momentum",
        json_schema_extra={"ko": "병원들의 걸음을 모으는 법: 평균, 공유 가중치 가까이 붙듦, 운동량을 둔 평균"},
    )
    mu: float = Field(
        0.1, ge=0, le=100, description="fedprox: pull to the shared weights", json_schema_extra={"ko": "fedprox의 당김"}
    )
    server_learning_rate: float = Field(
        0.03, gt=0, le=10, description="fedadam: the hub's step", json_schema_extra={"ko": "fedadam: 허브의 보폭"}
    )
    beta1: float = Field(
        0.9, ge=0, lt=1, description="fedadam: memory of steps", json_schema_extra={"ko": "fedadam: 걸음의 기억"}
    )
    beta2: float = Field(
        0.99, ge=0, lt=1, description="fedadam: memory of squares", json_schema_extra={"ko": "fedadam: 제곱의 기억"}
    )
    tau: float = Field(
        0.001,
        gt=0,
        le=1,
        description="fedadam: smallest divisor",
        json_schema_extra={"ko": "fedadam: 가장 작은 나눗수"},
    )
    personal: bool = Field(
        False,
        description="each hospital trains and keeps an output layer of its own",
        json_schema_extra={"ko": "병원마다 자기 출력층을 학습하고 간직함"},
    )
    validation: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="share of people kept from training, on whom each round is measured; the best round is the answer",
        json_schema_extra={"ko": "학습에서 빼 두고 라운드마다 손실을 재는 사람의 비율. 가장 나은 라운드가 답"},
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="stop after so many rounds without a lower validated loss",
        json_schema_extra={"ko": "검증 손실이 이만큼의 라운드 동안 낮아지지 않으면 멈춤"},
    )
    precision: Literal["double", "single"] = Field(
        "double", description="of weights and steps", json_schema_extra={"ko": "가중치와 계산의 정밀도"}
    )
    seed: int = Field(
        0,
        ge=0,
        description="of first weights, orders of people and the validated share",
        json_schema_extra={"ko": "처음 가중치, 사람의 순서, 검증 몫의 시드"},
    )

    @model_validator(mode="after")
    def _usable(self) -> Parameters:
        if self.outcome in self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise ValueError("Each input is named once, and the outcome is none of them")
        if "site" in self.inputs:
            raise ValueError("The hospital is no input: `personal` gives each an output layer of its own")
        if self.learning_rate * self.l2 > 1:
            raise ValueError("learning_rate * l2 is above 1: every step would enlarge the weights")
        if self.patience is not None and not self.validation:
            raise ValueError("`patience` needs a share of `validation`")
        if self.personal and not self.hidden:
            raise ValueError("`personal` keeps the output layer: without a hidden layer nothing would be shared")
        for name in self.model_fields_set & set(ONLY_WITH):
            if self.strategy != ONLY_WITH[name]:
                raise ValueError(f"`{name}` belongs to the strategy '{ONLY_WITH[name]}'")
        return self

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64 if self.precision == "double" else np.float32)
