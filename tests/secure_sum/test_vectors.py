"""The test vectors of docs/secure-sum.md: this implementation gives them, and another one written from the page does.

Make them anew, if the protocol changes: python tests/secure_sum/test_vectors.py
"""

from __future__ import annotations

import hashlib
import hmac
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from Crypto.Cipher import AES
from Crypto.Util import Counter
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from dure.federation.messages import Ask
from dure.federation.secure_sum import keys, masks, sharing
from dure.federation.secure_sum.exchange import question_digest
from dure.study.summary import ArraySpec

PATH = Path(__file__).with_name("vectors.json")
NAMES = ("A", "B", "가람")
MEMBERS = (*NAMES, "D")
"""The study's sums began with one hospital more."""
RESULTS = {"score": b"the packed result of an earlier step", "none": None}
STUDY, RUN = "sha256:" + "0" * 64, "run-1"
BUILT_ON = hashlib.sha256(b"dure test vector: built on").digest()
DECLARED = (
    ArraySpec("n", (), "count"),
    ArraySpec("sums", (3,), "moment"),
    ArraySpec("powers", (1, 4), "moment", sides=True),
    ArraySpec("weights", (2,), "weights"),
)
SENT = (masks.WITHHELD, *DECLARED)
NUMBERS: dict[str, dict[str, list[Any]]] = {
    "A": {"n": [40], "sums": [2480.0, -0.1, 3.0], "powers": [40.0, 1.5, -0.25, 1e-20], "weights": [0.5, -1e-3]},
    "B": {"n": [25], "sums": [1500.0, 1e-30, -7.25], "powers": [25.0, 2.5, 0.125, 2.0], "weights": [0.0, 2.5]},
    "가람": {"n": [35], "sums": [2240.0, 1e30, 0.3], "powers": [35.0, 0.1, 1e9, 1e40], "weights": [-2.0, 1e-9]},
}


def fixed(label: str) -> bytes:
    """32 bytes for a secret, so that everything below is the same every time."""
    return hashlib.sha256(f"dure test vector: {label}".encode()).digest()


def summary(name: str) -> dict[str, Any]:
    numbers = {".": [0], **NUMBERS[name]}
    return {spec.name: np.array(numbers[spec.name], spec.dtype).reshape(spec.shape) for spec in SENT}


def made(shares: list[str]) -> dict[str, Any]:
    """Everything by the code under test; `shares` of the secret `seed` of A, which are random."""
    session = fixed("session")
    signing = {name: Ed25519PrivateKey.from_private_bytes(fixed(f"identity {name}")) for name in NAMES}
    roster = {name: key.public_key().public_bytes_raw() for name, key in signing.items()}
    secrets: dict[str, dict[str, bytes]] = {}
    adverts: dict[str, dict[str, bytes]] = {}
    for name in NAMES:
        given = [fixed(f"seed {name}"), fixed(f"seal {name}"), fixed(f"mask {name}")]
        secrets[name], adverts[name] = keys.fresh(session, name, lambda size, given=given: given.pop())
        statement = keys.keys_statement(session, (STUDY, RUN), MEMBERS, roster, name, adverts[name])
        adverts[name]["signature"] = signing[name].sign(statement)
    ask = Ask(RUN, STUDY, "model", 2, NAMES, {"beta": [0.5, -1.0]}, RESULTS)
    question, digest = question_digest(ask, DECLARED, BUILT_ON), keys.digest_of(adverts)
    streams = {
        name: [
            keys.own_stream(session, name, secrets[name]["seed"]),
            *(
                keys.pair_stream(session, question, name, secrets[name]["mask"], other, adverts[other]["mask"])
                for other in NAMES
                if other != name
            ),
        ]
        for name in NAMES
    }
    vectors = {name: masks.masked(summary(name), SENT, 3, streams[name]) for name in NAMES}
    statement = keys.set_statement(session, digest, question, list(NAMES))
    nonce, plain = fixed("nonce")[:12], fixed("share 1") + fixed("share 2")
    sealed = keys.seal(session, "A", secrets["A"]["seal"], "B", adverts["B"]["seal"], plain, lambda size: nonce)
    own = [keys.own_stream(session, name, secrets[name]["seed"], -1) for name in NAMES]
    total = masks.opened(masks.added(list(vectors.values()), SENT), SENT, own)
    return {
        "session": session.hex(),
        "next_session": keys.next_session(session).hex(),
        "study": STUDY,
        "run": RUN,
        "members": sorted(MEMBERS),
        "hospitals": {
            name: {
                "identity_private": fixed(f"identity {name}").hex(),
                "identity_public": roster[name].hex(),
                "secrets": {part: value.hex() for part, value in secrets[name].items()},
                "advert": {part: value.hex() for part, value in adverts[name].items()},
                "numbers": NUMBERS[name],
                "encoded": masks.masked(summary(name), SENT, 3, []).hex(),
                "own_key": streams[name][0].key.hex(),
                "masked": vectors[name].hex(),
                "signature_of_set": signing[name].sign(statement).hex(),
            }
            for name in NAMES
        },
        "pair_keys": {
            f"{one} {other}": keys.pair_stream(
                session, question, one, secrets[one]["mask"], other, adverts[other]["mask"]
            ).key.hex()
            for one, other in (("A", "B"), ("A", "가람"), ("B", "가람"))
        },
        "keys_digest": digest.hex(),
        "declaration": [[spec.name, list(spec.shape), spec.kind, spec.sides] for spec in DECLARED],
        "question": {
            "step": "model",
            "round": 2,
            "fold": None,
            "state": {"beta": [0.5, -1.0]},
            "built_on": BUILT_ON.hex(),
            "results": {name: result.hex() if result else None for name, result in RESULTS.items()},
        },
        "question_digest": question.hex(),
        "set_statement": statement.hex(),
        "sealed": {"from": "A", "to": "B", "nonce": nonce.hex(), "plain": plain.hex(), "sealed": sealed.hex()},
        "shares_of_seed_of_A": shares,
        "total": {name: np.ravel(values).tolist() for name, values in total.items()},
    }


def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return found


def test_the_vectors_are_those_of_this_implementation() -> None:
    assert made(stored()["shares_of_seed_of_A"]) == stored()


def test_any_two_of_the_three_shares_give_the_secret() -> None:
    vectors = stored()
    shares = {place: bytes.fromhex(share) for place, share in enumerate(vectors["shares_of_seed_of_A"], 1)}
    for left_out in shares:
        two = {place: share for place, share in shares.items() if place != left_out}
        assert sharing.combine(two).hex() == vectors["hospitals"]["A"]["secrets"]["seed"]


# ── another implementation: whole numbers of Python, HKDF by hand, AES of another library ──


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    first = hmac.digest(salt, secret, "sha256")
    return hmac.digest(first, info + b"\x01", "sha256")


def keystream(key: bytes, size: int) -> bytes:
    return AES.new(key, AES.MODE_CTR, counter=Counter.new(128, initial_value=0)).encrypt(bytes(size))


LIMBS = {"count": (1, 0), "weights": (2, 64), "moment": (4, 128), "powers": (8, 256)}


def test_another_implementation_gives_the_same_masked_bytes() -> None:
    vectors = stored()
    session = bytes.fromhex(vectors["session"])
    classes = {name: "powers" if sides else kind for name, _, kind, sides in vectors["declaration"]}
    order = [name for kind in LIMBS for name, of in classes.items() if of == kind]
    for mine, hospital in vectors["hospitals"].items():
        secrets = {part: bytes.fromhex(value) for part, value in hospital["secrets"].items()}
        streams = [(1, hkdf(secrets["seed"], session, msgpack.packb(["dure/sum/2/own", mine])))]
        for theirs, other in vectors["hospitals"].items():
            if theirs != mine:
                public = X25519PublicKey.from_public_bytes(bytes.fromhex(other["advert"]["mask"]))
                shared = X25519PrivateKey.from_private_bytes(secrets["mask"]).exchange(public)
                pair = sorted([mine, theirs])
                asked = bytes.fromhex(vectors["question_digest"])
                key = hkdf(shared, session, msgpack.packb(["dure/sum/2/pair", asked, *pair]))
                assert vectors["pair_keys"][" ".join(pair)] == key.hex()
                streams.append((1 if mine == pair[0] else -1, key))
        plain = [(0, 1, 0)]  # nothing is withheld
        plain += [(value, *LIMBS[classes[name]]) for name in order for value in hospital["numbers"][name]]
        size = sum(8 * limbs for _, limbs, _ in plain)
        stretched = [(sign, keystream(key, size)) for sign, key in streams]
        bare, masked, at = b"", b"", 0
        for value, limbs, fraction in plain:
            whole, wide = round(Fraction(value) * 2**fraction), 8 * limbs
            bare += (whole % 2 ** (64 * limbs)).to_bytes(wide, "little")
            whole += sum(sign * int.from_bytes(stream[at : at + wide], "little") for sign, stream in stretched)
            masked += (whole % 2 ** (64 * limbs)).to_bytes(wide, "little")
            at += wide
        assert bare.hex() == hospital["encoded"]
        assert masked.hex() == hospital["masked"]


def test_another_implementation_reads_the_same_statements() -> None:
    vectors = stored()
    session, study, run = bytes.fromhex(vectors["session"]), vectors["study"], vectors["run"]
    hospitals = vectors["hospitals"]
    roster = [[name, bytes.fromhex(hospitals[name]["identity_public"])] for name in sorted(hospitals)]
    listed = []
    for name in sorted(hospitals):
        advert = {part: bytes.fromhex(value) for part, value in hospitals[name]["advert"].items()}
        seed = bytes.fromhex(hospitals[name]["secrets"]["seed"])
        assert advert["seed"] == hashlib.sha256(msgpack.packb(["dure/sum/2/seed", session, name, seed])).digest()
        public = [advert[part] for part in ("mask", "seal", "seed")]
        statement = msgpack.packb(["dure/sum/2/keys", session, study, run, vectors["members"], roster, name, *public])
        signer = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(hospitals[name]["identity_private"]))
        assert signer.sign(statement) == advert["signature"]
        listed.append([name, *public, advert["signature"]])
    digest = hashlib.sha256(msgpack.packb(listed)).digest()
    assert digest.hex() == vectors["keys_digest"]
    asked = vectors["question"]
    about = [study, run, asked["step"], asked["round"], asked["fold"], sorted(hospitals), asked["state"]]
    results = {name: bytes.fromhex(result) if result else None for name, result in asked["results"].items()}
    question = hashlib.sha256(
        msgpack.packb([*about, results, bytes.fromhex(asked["built_on"]), vectors["declaration"]])
    ).digest()
    assert question.hex() == vectors["question_digest"]
    statement = msgpack.packb(["dure/sum/2/set", session, digest, question, sorted(hospitals)])
    assert statement.hex() == vectors["set_statement"]
    following = hashlib.sha256(msgpack.packb(["dure/sum/2/next", session])).hexdigest()
    assert following == vectors["next_session"]


if __name__ == "__main__":
    shares = [share.hex() for share in sharing.split(fixed("seed A"), 3)]
    PATH.write_text(json.dumps(made(shares), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
