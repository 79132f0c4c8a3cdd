# Table 1 by arm as R's tableone gives it, weighted as its svyCreateTableOne does on survey's design: weighted means,
# survey::svyvar's variance (mean of squares times n / (n - 1), n those of non-zero weight), weighted shares; and
# absolute standardised differences of two groups with the mean of the two variances (Yang & Dalton for levels). `cobalt`
# divides by the standard deviations of the unweighted sample instead.
people <- read.csv("data/table_one.csv", na.strings = "", stringsAsFactors = FALSE)

moments <- function(x, w) {
  keep <- !is.na(x) & w > 0
  x <- x[keep]; w <- w[keep]; n <- length(x)
  mean <- weighted.mean(x, w)
  c(n = n, mean = mean, var = sum(w * (x - mean)^2) / sum(w) * n / (n - 1))
}
shares <- function(x, w) {
  keep <- !is.na(x) & w > 0
  tapply(w[keep], factor(x[keep], levels = sort(unique(people_levels))), sum, default = 0) / sum(w[keep])
}
numeric_smd <- function(one, other, one_spread, other_spread)
  abs(one["mean"] - other["mean"]) / sqrt((one_spread["var"] + other_spread["var"]) / 2)
level_smd <- function(one, other, one_spread, other_spread) {
  covariance <- function(p) { p <- p[-1]; diag(p, length(p)) - outer(p, p) }
  s <- (covariance(one_spread) + covariance(other_spread)) / 2
  gap <- one[-1] - other[-1]
  sqrt(drop(t(gap) %*% solve(s) %*% gap))
}
pairs <- list(c("a", "b"), c("a", "c"), c("b", "c"))
arms <- split(people, people$arm)
ones <- lapply(arms, function(part) rep(1, nrow(part)))
heavy <- lapply(arms, function(part) part$weight)

out <- list()
for (name in c("age", "marker", "stage", "smoker")) {
  number <- name %in% c("age", "marker")
  people_levels <- if (number) NULL else people[[name]][!is.na(people[[name]])]
  describe <- if (number) moments else shares
  compare <- if (number) numeric_smd else level_smd
  plain <- mapply(function(part, w) describe(part[[name]], w), arms, ones, SIMPLIFY = FALSE)
  weighted <- mapply(function(part, w) describe(part[[name]], w), arms, heavy, SIMPLIFY = FALSE)
  largest <- function(of, spread)
    max(sapply(pairs, function(p) compare(of[[p[1]]], of[[p[2]]], spread[[p[1]]], spread[[p[2]]])))
  out[[name]] <- list(
    plain = lapply(plain, function(v) unname(c(v))),
    weighted = lapply(weighted, function(v) unname(c(v))),
    smd = unname(largest(plain, plain)),
    smd_weighted = unname(largest(weighted, weighted)),
    smd_weighted_cobalt = unname(largest(weighted, plain))
  )
}
out$effective <- lapply(heavy, function(w) sum(w)^2 / sum(w^2))
answer(out)
