# Rates, ratios and standardised rates: poisson.test, sandwich, and epitools' formulas written out.
library(sandwich)
d <- read.csv("data/incidence.csv")
d$smoking <- factor(d$smoking)
d$band <- cut(d$age, c(-Inf, 40, 60, 75, Inf), right = FALSE)
x <- tapply(d$events, d$smoking, sum); t <- tapply(d$years, d$smoking, sum)
rates <- lapply(seq_along(x), function(i) c(x[i] / t[i], poisson.test(x[i], t[i])$conf.int))
ratios <- lapply(2:3, function(i) {
  found <- poisson.test(c(x[i], x[1]), c(t[i], t[1]))
  c(found$estimate, found$p.value, found$conf.int)
})
# Robust: a Poisson model with an offset, HC0.
fit <- glm(events ~ 0 + smoking + offset(log(years)), family = poisson, data = d,
           control = glm.control(epsilon = 1e-15, maxit = 100))
v <- vcovHC(fit, type = "HC0")
z <- qnorm(0.975)
robust <- lapply(1:3, function(i) exp(coef(fit)[[i]]) * c(1, sqrt(v[i, i]), exp(-z * sqrt(v[i, i])), exp(z * sqrt(v[i, i]))))
wald <- lapply(2:3, function(i) {
  b <- coef(fit)[[i]] - coef(fit)[[1]]; s <- sqrt(v[i, i] + v[1, 1])
  c(exp(b), s, b / s, 2 * pnorm(-abs(b / s)), exp(b - z * s), exp(b + z * s))
})
# epitools::ageadjust.direct (Fay & Feuer 1997), by sex over four age bands.
weights <- c(50, 30, 14, 6)
direct <- lapply(c("f", "m"), function(s) {
  own <- d[d$sex == s, ]
  count <- tapply(own$events, own$band, sum); pop <- tapply(own$years, own$band, sum)
  w <- weights / sum(weights); dsr <- sum(w * count / pop); var <- sum(w^2 * count / pop^2); wm <- max(w / pop)
  c(dsr, sqrt(var), qgamma(0.025, shape = dsr^2 / var, scale = var / dsr),
    qgamma(0.975, shape = (dsr + wm)^2 / (var + wm^2), scale = (var + wm^2) / (dsr + wm)))
})
# Its variance with people of several events: Stukel et al. 1994.
stukel <- sapply(c("f", "m"), function(s) {
  own <- d[d$sex == s, ]; w <- weights / sum(weights)
  parts <- sapply(levels(d$band), function(b) {
    one <- own[own$band == b, ]; r <- sum(one$events) / sum(one$years)
    sum((one$events - r * one$years)^2) / sum(one$years)^2
  })
  sqrt(sum(w^2 * parts))
})
reference <- c(0.04, 0.07, 0.11, 0.15)
indirect <- lapply(c("f", "m"), function(s) {
  own <- d[d$sex == s, ]
  e <- sum(reference * tapply(own$years, own$band, sum)); o <- sum(own$events)
  c(e, o / e, poisson.test(o)$conf.int / e)
})
answer(list(rates = rates, ratios = ratios, robust = robust, wald = wald, direct = direct, stukel = unname(stukel),
            indirect = indirect))
