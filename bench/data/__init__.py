"""Data sets for reports, each a folder as `exmem train` takes; `bench/data/README.md` lists them."""
