"""What a paper says of a trained network: architecture, strategy, and the works they come from."""

from __future__ import annotations

from dure.language import Words
from dure.methods.training.parameters import Parameters
from dure.study.result import Figure

FEDAVG = (
    "McMahan HB, Moore E, Ramage D, Hampson S, Agüera y Arcas B. Communication-efficient learning of deep networks "
    "from decentralized data. Proc Mach Learn Res (AISTATS) 2017;54:1273–82."
)
FEDPROX = (
    "Li T, Sahu AK, Zaheer M, Sanjabi M, Talwalkar A, Smith V. Federated optimization in heterogeneous networks. "
    "Proc Mach Learn Syst 2020;2:429–50."
)
FEDADAM = (
    "Reddi SJ, Charles Z, Zaheer M, Garrett Z, Rush K, Konečný J, et al. Adaptive federated optimization. "
    "International Conference on Learning Representations 2021."
)
FEDPER = (
    "Arivazhagan MG, Aggarwal V, Singh AK, Choudhary S. Federated learning with personalization layers. "
    "arXiv 1912.00818, 2019."
)
STRATEGIES = {"fedavg": ("FedAvg", FEDAVG), "fedprox": ("FedProx", FEDPROX), "fedadam": ("FedAdam", FEDADAM)}


def figures() -> dict[str, Figure]:
    """Loss by round, of the people trained on."""
    return {
        "loss": Figure(
            "lines",
            "training",
            x="round",
            y="loss",
            title=Words("Loss by training round", "학습 라운드별 손실"),
            x_title=Words("round", "라운드"),
            y_title=Words("mean log loss", "평균 로그 손실"),
        )
    }


def paragraph(p: Parameters) -> tuple[Words, tuple[str, ...]]:
    """The methods section's sentences, and the works cited in them."""
    name, work = STRATEGIES[p.strategy]
    works = [work]
    widths = ", ".join(map(str, p.hidden))
    shape = Words(
        f"a feed-forward network with hidden layers of {widths} units (ReLU)" if p.hidden else "a logistic model",
        f"은닉층 너비가 {widths}인 전방향 신경망(ReLU)" if p.hidden else "로지스틱 모형",
    )
    en = (
        f"The outcome {p.outcome} was predicted from {', '.join(p.inputs)} by {shape.en}, trained by {name} [1] over "
        f"at most {p.rounds} rounds of {p.local_epochs} local epochs (learning rate {p.learning_rate:g}, "
        f"weight penalty {p.l2:g}); inputs were standardised by means and standard deviations over all hospitals."
    )
    ko = (
        f"결과 변수 {p.outcome}을(를) {', '.join(p.inputs)}(으)로부터 {shape.ko}으로 예측하였으며, {name} [1] 방식으로 "
        f"최대 {p.rounds}라운드(라운드마다 병원에서 {p.local_epochs}회 반복, 학습률 {p.learning_rate:g}, "
        f"가중치 벌점 {p.l2:g}) 학습하였다. 입력은 모든 병원의 평균과 표준편차로 표준화하였다."
    )
    if p.personal:
        works.append(FEDPER)
        en += " Each hospital kept an output layer of its own [2]."
        ko += " 출력층은 병원마다 따로 두었다 [2]."
    return Words(en, ko), tuple(works)
