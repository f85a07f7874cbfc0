"""The dataset card, its tables and charts, and the code that fills them from the data."""
