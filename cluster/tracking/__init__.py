"""MLflow tracking that never stops the work: runs, unsent records and the model registry."""
