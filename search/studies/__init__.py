"""Many searches and trainings compared: studies, their results, and the README's tables."""
