"""Formatting that pages, tables and consoles share: figures, text tables and text from outside made safe to show."""
