"""What several stages need to know about models: tasks, predictors, signatures, versions, size and cost."""
