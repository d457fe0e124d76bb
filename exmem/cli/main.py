def main() -> None:
    """TODO."""
