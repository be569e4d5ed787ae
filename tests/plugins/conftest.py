"""What lies in these folders is other people's: packages that are installed and run, not tests."""

collect_ignore = ["stec_toy"]
