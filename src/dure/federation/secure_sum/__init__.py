"""Sums that nobody can open for one hospital: masks that cancel, shares against dropouts, one set that all sign.

The protocol is written down in docs/secure-sum.md. `member` is the hospital's half, `opening` the hub's.
"""
