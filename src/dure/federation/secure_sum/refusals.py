"""Why a hospital gives nothing for a sum: one table, which docs/secure-sum.md and the tests of attacks follow."""

from __future__ import annotations

from dure.errors import SumRefused
from dure.language import Words

RULES: dict[str, Words] = {
    "form": Words("A message is not of the form that the protocol has", "메시지가 규약의 형식이 아닙니다"),
    "own_key": Words(
        "This hospital's own key is missing from the list, or is another one",
        "목록에 이 병원의 키가 없거나 다른 키입니다",
    ),
    "pinned_key": Words(
        "A hospital's key is not the one pinned here, or it is not on this hospital's closed list",
        "어느 병원의 키가 고정해 둔 것과 다르거나, 닫힌 목록에 없는 병원입니다",
    ),
    "key_signature": Words(
        "Keys for this sum are not signed by the hospital they are said to be of",
        "이 합의 키에 그 병원의 서명이 없습니다",
    ),
    "replay": Words(
        "This session was used before, with other content",
        "이미 다른 내용으로 쓰인 세션입니다",
    ),
    "order": Words(
        "This stage does not follow what was said in the session before",
        "세션의 앞 단계와 이어지지 않는 요청입니다",
    ),
    "question": Words(
        "The question is not that of this session and its hospitals",
        "이 세션과 그 병원들의 질문이 아닙니다",
    ),
    "participants": Words(
        "Those present and those missing are not exactly the hospitals of the session",
        "참여한 병원과 빠진 병원을 합한 것이 세션의 병원과 다릅니다",
    ),
    "overlap": Words(
        "A hospital is said to be both present and missing", "한 병원이 참여하면서 빠졌다고 되어 있습니다"
    ),
    "not_present": Words("This hospital is not among those present", "이 병원이 참여한 병원에 들어 있지 않습니다"),
    "members": Words(
        "The hospitals among whom this study's sums are made are said to be others than in its first sum here",
        "이 연구의 합에 참여하는 병원이 이 병원이 처음 참여한 합과 다르게 제시되었습니다",
    ),
    "threshold": Words(
        "Half or more of the hospitals with which the study's sums began are missing",
        "연구의 합을 함께 시작한 병원의 절반 이상이 빠졌습니다",
    ),
    "minimum_hospitals": Words(
        "Too few hospitals are in the sum, and the permit does not have 'per_hospital'",
        "합에 든 병원이 너무 적고 허가서에 'per_hospital'이 없습니다",
    ),
    "second_set": Words(
        "Another set of hospitals was signed in this session", "이 세션에서 이미 다른 병원 집합에 서명했습니다"
    ),
    "difference": Words(
        "This sum and an earlier one would tell a few hospitals apart, and not all of them permitted that "
        "('difference')",
        "이 합과 이전 합을 견주면 몇 병원의 수치가 드러나는데, 그 병원 모두가 허가('difference')하지는 않았습니다",
    ),
    "unsigned": Words(
        "Not enough hospitals have signed the set of those present, or a signature is not theirs",
        "참여한 병원 집합에 서명한 병원이 모자라거나 서명이 그 병원의 것이 아닙니다",
    ),
    "forged_share": Words(
        "A share of a secret was not sealed by the hospital it is said to be of",
        "비밀 조각을 그 병원이 봉한 것이 아닙니다",
    ),
    "unmasked": Words(
        "Its part was asked for without masks, and its permit does not have 'visible_updates'",
        "가리지 않은 수치를 요청했으나 허가서에 'visible_updates'가 없습니다",
    ),
}


def refusal(hospital: str, rule: str) -> SumRefused:
    return SumRefused(hospital=hospital, rule=rule, problem=RULES[rule])
