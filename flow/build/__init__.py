"""Build plans: programs, their files, and where they run. Nothing else starts a program."""
