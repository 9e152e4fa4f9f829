"""What users hold, and how it becomes samples."""
