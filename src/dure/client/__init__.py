"""For researchers: `simulate` on frames, and the SDK that writes, submits, follows and fetches studies."""
