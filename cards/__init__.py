"""What the reader sees: card, tables and charts, and the code that fills them from the data."""
