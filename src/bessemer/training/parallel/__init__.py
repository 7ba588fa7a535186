"""Training on many processes: one file for each way to split the work, on a mesh that is passed."""
