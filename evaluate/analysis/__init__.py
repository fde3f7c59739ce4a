"""Statistics over scores of several methods: comparisons, rank stability, teacher specificity, query curves, strata."""
