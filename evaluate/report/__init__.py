"""The HTML report of one data set's scores, and its Markdown, CSV and console tables."""
