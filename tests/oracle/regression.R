library(MASS)
library(sandwich)
library(splines)

d <- read.csv("data/regression.csv")
d$stage <- factor(d$stage)
tight <- glm.control(epsilon = 1e-15, maxit = 200)
f <- function(y) as.formula(paste(y, "~ age + stage + treated"))

# Steps beyond glm's own stopping rule, which looks at the deviance alone: coefficients settle later where the link is
# not canonical, and standard errors are those of the step before.
fit <- function(formula, family, mean = NULL) {
  begin <- if (is.null(mean)) NULL else c(family$linkfun(mean), 0, 0, 0, 0)
  found <- glm(formula, family = family, data = d, control = tight, start = begin)
  for (i in 1:40) found <- glm(formula, family = family, data = d, control = tight, start = coef(found))
  found
}
said <- function(m) list(coef = unname(coef(m)), se = unname(sqrt(diag(vcov(m)))), deviance = deviance(m),
                         loglik = as.numeric(logLik(m)), dispersion = summary(m)$dispersion)
errors <- function(v) unname(sqrt(diag(v)))

links <- list(
  probit = fit(f("sick"), binomial("probit")),
  cloglog = fit(f("sick"), binomial("cloglog")),
  log_binomial = fit(f("rare"), binomial("log"), mean(d$rare)),
  identity_binomial = fit(f("rare"), binomial("identity"), mean(d$rare)),
  identity_poisson = fit(f("visits"), poisson("identity")),
  gamma_log = fit(f("cost"), Gamma("log")),
  gamma_inverse = fit(f("cost"), Gamma("inverse")),
  gamma_identity = fit(f("cost"), Gamma("identity")),
  gaussian_log = fit(f("pressure"), gaussian("log"), mean(d$pressure)),
  gaussian_inverse = fit(f("pressure"), gaussian("inverse"), mean(d$pressure))
)

nb <- glm.nb(f("falls"), data = d, control = glm.control(epsilon = 1e-15, maxit = 500))
nb_offset <- glm.nb(falls ~ age + treated + offset(exposure), data = d, weights = weight,
                    control = glm.control(epsilon = 1e-15, maxit = 500))
negative <- function(m) c(said(m), list(theta = m$theta, theta_se = m$SE.theta, twice = m$twologlik))

logistic <- fit(f("sick"), binomial())
linear <- lm(f("pressure"), data = d)
poisson <- fit(f("visits"), poisson())
cost <- links$gamma_log
robust <- function(m) list(
  HC0 = errors(vcovHC(m, type = "HC0")),
  HC1 = errors(vcovHC(m, type = "HC1")),
  cluster = errors(vcovCL(m, cluster = d$ward, type = "HC1", cadjust = TRUE))
)

ages <- c(15, 20, 33.3, 40, 52, 60, 71.5, 90, 97)
bases <- list(
  ns = unname(unclass(ns(ages, knots = c(40, 60), Boundary.knots = c(20, 90)))[, ]),
  ns4 = unname(unclass(ns(ages, knots = c(35, 45, 60, 75), Boundary.knots = c(20, 90)))[, ]),
  bs = unname(unclass(suppressWarnings(bs(ages, knots = c(40, 60), Boundary.knots = c(20, 90))))[, ]),
  bs2 = unname(unclass(suppressWarnings(bs(ages, knots = c(50), degree = 2, Boundary.knots = c(20, 90))))[, ])
)
curved <- fit(sick ~ ns(age, knots = c(55, 65), Boundary.knots = c(35, 85)) * treated, binomial())
bent <- lm(pressure ~ bs(age, knots = c(60), degree = 3, Boundary.knots = c(35, 85)) + stage, data = d)

answer(list(
  links = lapply(links, said),
  nb = negative(nb), nb_offset = negative(nb_offset), nb_HC0 = errors(sandwich(nb)),
  logistic = c(said(logistic), robust(logistic)), linear = robust(linear), poisson = robust(poisson),
  gamma = robust(cost), ages = ages, bases = bases,
  curved = said(curved), bent = list(coef = unname(coef(bent)), se = errors(vcov(bent)))
))
