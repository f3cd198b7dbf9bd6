"""A run for people: MODEL/report.html."""
