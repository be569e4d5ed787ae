"""Runs beside runs: the tables that compare them, the ledger of what was run, and what the seeds at hand can show."""
