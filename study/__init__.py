"""Many trainings: steps of a longer way, many at a time, and what the study compares."""
