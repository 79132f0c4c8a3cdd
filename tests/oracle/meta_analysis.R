suppressPackageStartupMessages(library(metafor))
people <- read.csv("data/meta_analysis.csv")

two <- do.call(rbind, lapply(split(people, people$hospital), function(p) data.frame(
  ai = sum(p$treated == 1 & p$event == 1), bi = sum(p$treated == 1 & p$event == 0),
  ci = sum(p$treated == 0 & p$event == 1), di = sum(p$treated == 0 & p$event == 0),
  m1i = mean(p$value[p$treated == 1]), sd1i = sd(p$value[p$treated == 1]), n1i = sum(p$treated == 1),
  m2i = mean(p$value[p$treated == 0]), sd2i = sd(p$value[p$treated == 0]), n2i = sum(p$treated == 0))))
full <- two[two$ai > 0 & two$bi > 0 & two$ci > 0 & two$di > 0, ]
tight <- list(threshold = 1e-15, maxiter = 10000, tol = 1e-14)

# Higgins, Thompson & Spiegelhalter 2009: t of k - 2 degrees, which this metafor does not offer itself.
higgins <- function(m) {
  away <- qt(0.975, m$k - 2) * sqrt(m$se^2 + m$tau2)
  list(pi.lb = c(m$b) - away, pi.ub = c(m$b) + away)
}
escalced <- function(measure) {
  if (measure == "MD") escalc("MD", m1i = m1i, sd1i = sd1i, n1i = n1i, m2i = m2i, sd2i = sd2i, n2i = n2i, data = two)
  else escalc(measure, ai = ai, bi = bi, ci = ci, di = di, data = full)
}
said <- function(m, d = predict(m)) list(
  estimate = c(m$b), std_error = m$se, statistic = m$zval, p_value = m$pval, ci_low = m$ci.lb, ci_high = m$ci.ub,
  prediction_low = d$pi.lb, prediction_high = d$pi.ub, tau2 = m$tau2, i2 = m$I2, h2 = m$H2, q = m$QE, q_p = m$QEp)

out <- list()
for (measure in c("OR", "RR", "RD", "MD")) {
  e <- escalced(measure)
  yi <- as.numeric(e$yi); vi <- as.numeric(e$vi)
  one <- list(yi = yi, vi = vi, fixed = said(rma(yi, vi, method = "EE")))
  for (how in c("REML", "DL", "PM")) {
    m <- rma(yi, vi, method = how, control = tight)
    k <- rma(yi, vi, method = how, test = "knha", control = tight)
    a <- rma(yi, vi, method = how, test = "adhoc", control = tight)
    left <- leave1out(rma(yi, vi, method = how, test = "knha", control = list(threshold = 1e-12, maxiter = 10000)))
    one[[how]] <- list(normal = said(m, higgins(m)), hksj = said(k), hksj_adhoc = said(a),
                       tau2_ci = confint(m, control = list(tol = 1e-14, maxiter = 10000, tau2.max = 1000))$random["tau^2", 2:3],
                       left = list(estimate = left$estimate, std_error = left$se, tau2 = left$tau2, i2 = left$I2))
  }
  out[[measure]] <- one
}
mh <- function(measure) {
  m <- rma.mh(ai = ai, bi = bi, ci = ci, di = di, data = two, measure = measure, add = 0, to = "none", correct = FALSE)
  list(estimate = c(m$b), std_error = m$se, ci_low = m$ci.lb, ci_high = m$ci.ub)
}
out$haenszel <- list(OR = mh("OR"), RR = mh("RR"))
answer(out)
