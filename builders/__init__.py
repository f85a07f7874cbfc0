"""What each dataset is and how its rows are computed; knows no params file, no DVC, no command line."""
