"""The `sage` command: what one looks at and tidies up from a terminal."""
