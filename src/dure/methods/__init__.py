"""One question of one cohort per file; what they share is `dure.estimation`, what they chain is a study's steps."""
