"""Many searches and trainings compared: studies, their results, and the tables of the pages."""
