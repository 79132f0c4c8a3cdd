# R survival: coxph with Efron's and Breslow's ties, strata, entries, weights, offsets, robust errors, cox.zph, basehaz.
library(survival)
d <- read.csv("data/cox.csv", stringsAsFactors = TRUE)
d$row <- seq_len(nrow(d))
end <- coxph.control(eps = 1e-14, toler.chol = 1e-15, iter.max = 60, timefix = FALSE)

fitted_ <- function(fit) {
  list(beta = unname(coef(fit)), std_error = unname(sqrt(diag(vcov(fit)))), likelihood = fit$loglik,
       score = fit$score, wald = unname(fit$wald.test), means = unname(fit$means))
}
# cox.zph solves unscaled matrices: its tests do not depend on a column's unit, so the marker is given in another one.
e <- transform(d, marker = marker * 1e6)
zph <- function(fit, transform) {
  fit$call$data <- quote(e)
  fit <- eval(fit$call, globalenv())
  table <- cox.zph(fit, transform = transform)$table
  list(term = rownames(table), chi2 = unname(table[, 1]), df = unname(table[, 2]), p = unname(table[, 3]))
}
model <- function(outcome, strata = "", ...) {
  formula <- as.formula(paste(outcome, "~ age + sex + stage + marker", strata), env = globalenv())
  more <- as.list(substitute(list(...)))[-1]
  kept <- list(data = quote(d), control = quote(end), x = TRUE, y = TRUE, model = TRUE)
  eval(as.call(c(list(quote(coxph), formula), kept, more)), globalenv())
}
by <- "+ strata(hospital)"
exact <- "Surv(time, event)"
late <- "Surv(entry, time, event)"
grid <- "Surv(grid_time, grid_event)"
grid_late <- "Surv(grid_entry, grid_time, grid_event)"
within <- list(
  efron = model(exact, by),
  breslow = model(exact, by, ties = "breslow"),
  ward = model(exact, "+ strata(hospital, ward)"),
  entry = model(late, by),
  entry_ward_breslow = model(late, "+ strata(hospital, ward)", ties = "breslow"),
  weights = model(exact, by, weights = weight, robust = FALSE),
  weights_robust = model(late, by, weights = weight, cluster = row),
  offset = model(exact, "+ offset(shift) + strata(hospital)"),
  robust = model(exact, by, cluster = row),
  robust_breslow = model(exact, by, cluster = row, ties = "breslow"),
  cluster = model(exact, by, cluster = interaction(hospital, cluster))
)
across <- list(
  efron = model(grid),
  breslow = model(grid, ties = "breslow"),
  ward = model(grid, "+ strata(ward)"),
  entry = model(grid_late),
  weights_robust = model(grid_late, "+ strata(ward)", weights = weight, cluster = row),
  offset = model(grid, "+ offset(shift)"),
  robust = model(grid, cluster = row),
  robust_breslow = model(grid_late, cluster = row, ties = "breslow"),
  cluster = model(grid, cluster = interaction(hospital, cluster))
)
hazards <- function(fit) {
  h <- basehaz(fit, centered = FALSE)
  list(time = h$time, hazard = h$hazard, strata = if (is.null(h$strata)) "" else as.character(h$strata))
}
transforms <- c(identity = "identity", log = "log", km = "km", rank = "rank")
agreed <- function(fit) unname(concordance(fit)$concordance)
answer(list(
  concordance = lapply(within, agreed),
  within = lapply(within, fitted_),
  across = lapply(across, fitted_),
  within_zph = lapply(transforms[1:2], function(g) lapply(within[c("efron", "breslow", "entry", "weights")], zph, g)),
  across_zph = lapply(transforms, function(g) lapply(across[c("efron", "breslow", "ward", "entry")], zph, g)),
  hazards = lapply(across[c("efron", "breslow", "ward", "entry")], hazards)
))
