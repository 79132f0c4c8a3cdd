"""Sums across hospitals: messages, the engine port, summing, answering at a site, and the rounds of a study."""
