"""How the datasets are made: one module per DVC stage (parse, call the builder, write), and the commands for people."""
