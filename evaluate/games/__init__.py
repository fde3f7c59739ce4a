"""Insertion and deletion games (Petsiuk et al. 2018) on the teacher: protocol, baselines, job, schema and summary."""
