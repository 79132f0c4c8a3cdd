# Elastic-net paths and cross-validation by glmnet, run to the end of its own precision.
library(glmnet)
glmnet.control(fdev = 0, devmax = 1, eps = 1e-12)
d <- read.csv("data/path.csv")
x <- cbind(a = d$a, b = d$b, cy = as.numeric(d$c == "y"), cz = as.numeric(d$c == "z"), d = d$d, e = d$e, f = d$f, g = d$g)
fit <- function(y, family, alpha, ...) {
  own <- glmnet(x, y, family = family, alpha = alpha, nlambda = 20, lambda.min.ratio = 1e-3, standardize = TRUE, ...)
  # with lambda given, folds are fitted at these values; without, cv.glmnet interpolates between a fold's own
  cv <- cv.glmnet(x, y, family = family, alpha = alpha, lambda = own$lambda, foldid = d$fold,
                  type.measure = "deviance", thresh = 1e-22, maxit = 1e8, standardize = TRUE, ...)
  list(lambda = cv$lambda, coefficients = unname(as.matrix(coef(cv$glmnet.fit))), cvm = cv$cvm, cvsd = cv$cvsd,
       least = cv$lambda.min, one_se = cv$lambda.1se)
}
answer(list(
  gaussian_lasso = fit(d$linear, "gaussian", 1),
  gaussian_net = fit(d$linear, "gaussian", 0.5),
  gaussian_ridge = fit(d$linear, "gaussian", 0),
  binomial_lasso = fit(d$ill, "binomial", 1),
  binomial_net = fit(d$ill, "binomial", 0.5),
  binomial_ridge = fit(d$ill, "binomial", 0),
  poisson_lasso = fit(d$visits, "poisson", 1),
  poisson_net = fit(d$visits, "poisson", 0.5),
  poisson_ridge = fit(d$visits, "poisson", 0),
  weighted = fit(d$ill, "binomial", 0.5, weights = d$weight),
  offset = fit(d$visits, "poisson", 1, offset = log(d$years))
))
