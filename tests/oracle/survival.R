# Kaplan–Meier, quantiles, restricted means and log-rank tests of R's survival; survRM2's contrasts from their formulas.
library(survival)
d <- read.csv("data/survival.csv")
d$group <- factor(d$group)
times <- c(90, 180, 365)
tau <- 500
shown <- function(fit) {
  s <- summary(fit, times = times)
  list(n = s$n.risk, survival = s$surv, error = s$std.err, low = s$lower, high = s$upper)
}
whole <- function(conf.type, weights = NULL, robust = FALSE) {
  d$w <- if (is.null(weights)) rep(1, nrow(d)) else weights
  d$row <- seq_len(nrow(d))
  fit <- survfit(Surv(time, event) ~ 1, data = d, conf.type = conf.type, weights = w, robust = robust, id = row)
  some <- seq(1, length(fit$time), by = 6)
  list(time = fit$time[some], survival = fit$surv[some], error = summary(fit, times = fit$time)$std.err[some],
       low = fit$lower[some], high = fit$upper[some])
}
curves <- lapply(setNames(nm = c("plain", "log", "log-log", "logit", "arcsin")), whole)
grouped <- survfit(Surv(time, event) ~ group, data = d, conf.type = "log-log")
entered <- survfit(Surv(entry, time, event) ~ group, data = d, conf.type = "log-log")
weighted <- survfit(Surv(time, event) ~ group, data = d, conf.type = "log-log", weights = weight, robust = FALSE)
quant <- function(fit) lapply(quantile(fit, probs = c(0.1, 0.25, 0.5, 0.75)), function(m) unname(m))
quantiles <- lapply(setNames(nm = c("log", "log-log", "plain")), function(type)
  quant(survfit(Surv(time, event) ~ group, data = d, conf.type = type)))
means <- function(fit) {
  t <- summary(fit, rmean = tau)$table
  list(mean = unname(t[, "rmean"]), error = unname(t[, "se(rmean)"]))
}
rmst <- means(grouped)
# survRM2::rmst2, unadjusted: second and third group against the first.
against <- lapply(2:3, function(k) {
  z <- qnorm(0.975); m <- rmst$mean; e <- rmst$error
  line <- function(est, se) c(est, se, est / se, 2 * pnorm(-abs(est / se)), est - z * se, est + z * se)
  ratio <- function(l) c(exp(l[1]), l[2:4], exp(l[5:6]))
  list(difference = line(m[k] - m[1], sqrt(e[k]^2 + e[1]^2)),
       ratio = ratio(line(log(m[k]) - log(m[1]), sqrt(e[k]^2 / m[k]^2 + e[1]^2 / m[1]^2))),
       lost = ratio(line(log(tau - m[k]) - log(tau - m[1]),
                         sqrt(e[k]^2 / (tau - m[k])^2 + e[1]^2 / (tau - m[1])^2))))
})
# The jackknife of a weighted restricted mean: areas under each person's influence on the curve.
jackknife <- sapply(levels(d$group), function(g) {
  own <- d[d$group == g, ]
  own$row <- seq_len(nrow(own))
  fit <- survfit(Surv(time, event) ~ 1, data = own, weights = weight, robust = TRUE, influence = TRUE, id = row)
  inside <- fit$time < tau
  width <- diff(c(fit$time[inside], tau))
  sqrt(sum((as.matrix(fit$influence.surv)[, inside] %*% width)^2))
})
rank_test <- function(f) list(chi2 = f$chisq, expected = if (is.matrix(f$exp)) rowSums(f$exp) else f$exp,
                              observed = if (is.matrix(f$obs)) rowSums(f$obs) else f$obs)
robust <- whole("log-log", d$weight, TRUE)
states <- function(weights, robust) {
  d$cause <- factor(d$cause, c("censored", "relapse", "death")); d$w <- weights; d$row <- seq_len(nrow(d))
  s <- summary(survfit(Surv(time, cause) ~ group, data = d, weights = w, id = row, conf.type = "log-log"), times = times)
  keep <- function(m) m[, 2:3]
  list(incidence = keep(s$pstate), error = keep(s$std.err), low = keep(s$lower), high = keep(s$upper))
}
answer(list(
  causes = states(rep(1, nrow(d)), TRUE), weighted_causes = states(d$weight, TRUE),
  curves = curves, times = shown(grouped), entered = shown(entered), weighted = shown(weighted),
  weighted_mean = means(weighted), entered_mean = means(entered), quantiles = quantiles, rmst = rmst, against = against,
  robust = robust, robust_mean = unname(jackknife),
  log_rank = rank_test(survdiff(Surv(time, event) ~ group, data = d)),
  peto = rank_test(survdiff(Surv(time, event) ~ group, data = d, rho = 1)),
  stratified = rank_test(survdiff(Surv(time, event) ~ group + strata(stage), data = d)),
  two_strata = rank_test(survdiff(Surv(time, event) ~ group + strata(stage, hospital), data = d)),
  stratified_peto = rank_test(survdiff(Surv(time, event) ~ group + strata(stage), data = d, rho = 0.5))
))
