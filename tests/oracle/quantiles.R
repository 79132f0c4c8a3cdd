# Quantiles of definitions 1, 2 and 7 by stats::quantile, of all people and by arm.
people <- read.csv("data/table_one.csv", na.strings = "")
probabilities <- c(0.05, 0.1, 0.25, 0.5, 0.75, 0.9)
of <- function(x) {
  found <- lapply(c(1, 2, 7), function(type) unname(quantile(x, probabilities, type = type, na.rm = TRUE)))
  names(found) <- c("1", "2", "7")
  found
}
answer(list(
  probabilities = probabilities,
  overall = list(age = of(people$age), marker = of(people$marker)),
  by_arm = lapply(split(people, people$arm), function(part) list(age = of(part$age), marker = of(part$marker)))
))
