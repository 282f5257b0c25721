"""What every task reads: files, clips, digits, splits and caches."""
