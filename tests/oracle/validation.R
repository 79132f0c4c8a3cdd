suppressPackageStartupMessages(library(pROC))
people <- read.csv("data/validation.csv")
tight <- glm.control(epsilon = 1e-15, maxit = 100)

curve <- function(p, score) roc(p$y, p[[score]], direction = "<", levels = c(0, 1), quiet = TRUE)
of <- function(p) {
  one <- curve(p, "score"); other <- curve(p, "other")
  test <- roc.test(other, one, method = "delong", paired = TRUE)
  list(auc = c(as.numeric(auc(one)), as.numeric(auc(other))), var = c(var(one), var(other)),
       difference = as.numeric(auc(other)) - as.numeric(auc(one)), p = test$p.value)
}
again <- function(p, score) {
  p$logit <- qlogis(p[[score]])
  large <- glm(y ~ offset(logit), family = binomial, data = p, control = tight)
  slope <- glm(y ~ logit, family = binomial, data = p, control = tight)
  list(large = c(unname(coef(large)), sqrt(vcov(large)[1, 1])),
       slope = c(unname(coef(slope)[2]), sqrt(vcov(slope)[2, 2])))
}
hospitals <- split(people, people$hospital)
rounded <- transform(people, score = round(score * 20) / 20)
answer(list(hospitals = lapply(hospitals, of),
            rounded = list(auc = as.numeric(auc(curve(rounded, "score"))), var = var(curve(rounded, "score"))),
            recalibration = list(score = again(people, "score"), other = again(people, "other")),
            men = again(people[people$sex == "male", ], "score"),
            by_hospital = lapply(hospitals, again, score = "score")))
