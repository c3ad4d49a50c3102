"""What users import lives in `sage.core.api`."""
