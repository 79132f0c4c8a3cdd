"""What a journal prints of a regression: its figure, its sentences for the methods section, and their references."""

from __future__ import annotations

from dure.estimation.families import LINKS
from dure.language import Words
from dure.methods.regression.parameters import Parameters
from dure.study.result import Figure

MODELS = {
    ("gaussian", "identity"): Words("a linear regression", "선형 회귀"),
    ("binomial", "logit"): Words("a logistic regression", "로지스틱 회귀"),
    ("binomial", "log"): Words("a log-binomial regression", "로그-이항 회귀"),
    ("binomial", "probit"): Words("a probit regression", "프로빗 회귀"),
    ("poisson", "log"): Words("a Poisson regression", "포아송 회귀"),
    ("negative_binomial", "log"): Words("a negative binomial regression", "음이항 회귀"),
}
FAMILY = {
    "gaussian": Words("Gaussian", "정규"),
    "binomial": Words("binomial", "이항"),
    "poisson": Words("Poisson", "포아송"),
    "gamma": Words("gamma", "감마"),
    "negative_binomial": Words("negative binomial", "음이항"),
}
RATIOS = {
    ("binomial", "logit"): Words("Odds ratio", "오즈비"),
    ("binomial", "log"): Words("Risk ratio", "위험비"),
    ("binomial", "cloglog"): Words("Hazard ratio", "위험비(해저드)"),
    ("poisson", "log"): Words("Rate ratio", "발생률비"),
    ("negative_binomial", "log"): Words("Rate ratio", "발생률비"),
}
GLM = "McCullagh P, Nelder JA. Generalized Linear Models. 2nd ed. London: Chapman and Hall; 1989."
SIZE = "Lawless JF. Negative binomial and mixed Poisson regression. Can J Stat. 1987;15(3):209-225."
FIRTH = (
    "Firth D. Bias reduction of maximum likelihood estimates. Biometrika. 1993;80(1):27-38.",
    "Heinze G, Schemper M. A solution to the problem of separation in logistic regression. Stat Med. "
    "2002;21(16):2409-2419.",
)
ROBUST = {
    "HC0": "White H. A heteroskedasticity-consistent covariance matrix estimator and a direct test for "
    "heteroskedasticity. Econometrica. 1980;48(4):817-838.",
    "HC1": "MacKinnon JG, White H. Some heteroskedasticity-consistent covariance matrix estimators with improved "
    "finite sample properties. J Econom. 1985;29(3):305-325.",
    "cluster": "Liang KY, Zeger SL. Longitudinal data analysis using generalized linear models. Biometrika. "
    "1986;73(1):13-22.",
}


def _kind(asked: Parameters) -> tuple[str, str]:
    return asked.family, asked.link or LINKS[asked.family][0]


def figures(asked: Parameters) -> dict[str, Figure]:
    """A forest of the terms: ratios on a logarithmic axis where the link gives ratios, else coefficients."""
    kind = _kind(asked)
    ratio = kind[1] in ("log", "logit", "cloglog")
    value = RATIOS.get(kind, Words("Ratio of means", "평균의 비")) if ratio else Words("Coefficient", "계수")
    return {
        "coefficients": Figure(
            drawn="forest",
            table="ratios" if ratio else "coefficients",
            x="ratio" if ratio else "estimate",
            y="term",
            title=Words(f"{value.en} by term", f"항별 {value.ko}"),
            x_title=value,
            y_title=Words("Term", "항"),
            low="ci_low",
            high="ci_high",
            log=ratio,
            rule=(1.0,) if ratio else (0.0,),
        )
    }


def references(asked: Parameters) -> tuple[str, ...]:
    """In the order in which the paragraph cites them."""
    found = [GLM]
    if asked.family == "negative_binomial":
        found.append(SIZE)
    if asked.firth:
        found += FIRTH
    if asked.covariance in ROBUST:
        found.append(ROBUST[asked.covariance])
    return tuple(found)


def paragraph(asked: Parameters) -> Words:
    """The sentences for a methods section, from the parameters alone."""
    kind, cited = _kind(asked), references(asked)

    def mark(*works: str) -> str:
        return "[" + ",".join(str(cited.index(work) + 1) for work in works) + "]"

    family, link = FAMILY[kind[0]], kind[1]
    model = MODELS.get(
        kind,
        Words(f"a {family.en} regression with the {link} link", f"{link} 연결을 쓴 {family.ko} 회귀"),
    )
    how = Words(f"by maximum likelihood {mark(GLM)}", f"최대가능도로 {mark(GLM)}")
    if asked.firth:
        how = Words(
            f"by Firth's penalised likelihood {mark(GLM, *FIRTH)}", f"Firth의 벌점 가능도로 {mark(GLM, *FIRTH)}"
        )
    if asked.family == "negative_binomial":
        how = Words(
            f"by maximum likelihood, jointly with its dispersion {mark(GLM, SIZE)}",
            f"산포 모수와 함께 최대가능도로 {mark(GLM, SIZE)}",
        )
    extra_en, extra_ko = "", ""
    if asked.weights:
        extra_en += f", weighted by {asked.weights}"
        extra_ko += f", 가중치는 {asked.weights}"
    if asked.offset:
        extra_en += f", with {asked.offset} as an offset"
        extra_ko += f", 오프셋은 {asked.offset}"
    if asked.covariance in ("HC0", "HC1"):
        cite = mark(ROBUST[asked.covariance])
        errors = Words(f"robust ({asked.covariance}) {cite}", f"로버스트({asked.covariance}) {cite}")
    elif asked.covariance == "cluster":
        of = Words("hospital", "병원") if asked.cluster == "site" else Words(str(asked.cluster), str(asked.cluster))
        cite = mark(ROBUST["cluster"])
        errors = Words(
            f"robust and clustered by {of.en}, with the factor G/(G − 1) · (n − 1)/(n − p) {cite}",
            f"{of.ko}별 군집 로버스트이며 G/(G − 1) · (n − 1)/(n − p)로 보정 {cite}",
        )
    elif asked.covariance == "observed":
        errors = Words("from the observed information", "관측 정보 행렬에서 구함")
    else:
        errors = Words("model-based", "모형 기반")
    percent = f"{100 * asked.level:g}"
    return Words(
        f"We fitted {model.en} ({asked.formula}) {how.en}{extra_en}. Standard errors were {errors.en}; "
        f"intervals are {percent}% Wald intervals.",
        f"{model.ko} 모형({asked.formula})을 {how.ko} 적합하였다{extra_ko}. "
        f"표준오차는 {errors.ko}, 신뢰구간은 {percent}% Wald 구간이다.",
    )
