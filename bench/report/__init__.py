"""What is worth its bytes: every choice of masking, selection, fill and augmentation, measured on the demo data."""
