"""Code of a user, which type checkers look at beside the installed package."""
